"""What is run inside nnU-Net before its training, on a trainer with the same methods and a clock of the test's own."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from radiffuse.studies.nnunet_training import REFUSED, epochs_of, load_weights, train_for


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def trainer_class(clock: Clock) -> Any:
    """A trainer as nnU-Net's: a start of 4 s, iterations of half a second, a learning rate that falls by epochs."""

    class Trainer:
        num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch = 1000, 250, 50
        save_every = 50

        def __init__(self) -> None:
            torch.manual_seed(0)
            self.network = nn.Linear(2, 1)
            self.optimizer, self.lr_scheduler = self.configure_optimizers()
            self.logger = type("Logger", (), {"plot_progress_png": lambda *_: None})()
            self.steps = 0

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.99)
            fall = torch.optim.lr_scheduler.PolynomialLR(optimizer, self.num_epochs, power=0.9)
            return optimizer, fall

        def on_train_start(self) -> None:
            clock.now += 4
            self.dataloader_train = itertools.repeat(torch.ones(3, 2))

        def train_step(self, batch: torch.Tensor) -> None:
            clock.now += 0.5
            self.steps += 1
            self.optimizer.zero_grad()
            self.network(batch).sum().backward()
            self.optimizer.step()

        def perform_actual_validation(self, save: bool) -> None:
            raise AssertionError("it segments the training cases for hours")

        def run_training(self) -> list[float]:
            self.on_train_start()
            rates = []
            for _ in range(self.num_epochs):
                rates.append(self.optimizer.param_groups[0]["lr"])
                for _ in range(self.num_iterations_per_epoch):
                    self.train_step(next(self.dataloader_train))
                self.lr_scheduler.step()
                clock.now += 0.5 * self.num_val_iterations_per_epoch
            return rates

    return Trainer


@pytest.mark.parametrize(
    ("iterations", "epochs", "each"),
    [(1, 1, 1), (6, 3, 1), (40, 10, 3), (1000, 10, 99), (25_000, 100, 249), (10**6, 1000, 999)],
)
def test_epochs_and_their_validation_take_as_long_as_the_iterations(
    iterations: int, epochs: int, each: int
) -> None:
    assert epochs_of(iterations) == {
        "epochs": epochs, "iterations_per_epoch": each, "iterations": epochs * each
    }  # fmt: skip
    assert epochs * (each + 1) <= max(iterations, 2)


def test_a_training_takes_the_seconds_it_is_given_and_its_rate_falls_over_them(
    tmp_path: Path,
) -> None:
    clock, note = Clock(), tmp_path / "length.json"
    kind = trainer_class(clock)
    untouched = kind().network.weight.clone()
    train_for(kind, 104.0, str(note), clock)
    trainer = kind()
    seen = []
    step = trainer.train_step
    trainer.train_step = lambda batch: (seen.append(trainer.network.weight.clone()), step(batch))
    rates = trainer.run_training()
    # 4 s of start and 5 iterations leave 97.5 s: 195 iterations.
    chosen = {"epochs": 10, "iterations_per_epoch": 18, "iterations": 180}
    assert json.loads(note.read_text()) == chosen | {"seconds_per_iteration": 0.5}
    assert 95 < clock.now - 100 <= 104
    assert rates == pytest.approx([0.01 * (1 - epoch / 10) ** 0.9 for epoch in range(10)])
    assert torch.equal(seen[0], untouched)
    assert torch.equal(seen[5], untouched)  # what was timed is forgotten
    assert trainer.steps == 5 + 180
    trainer.perform_actual_validation(False)

    # A resumed training keeps its numbers, whatever time is left.
    again = trainer_class(clock)
    train_for(again, 1.0, str(note), clock)
    resumed = again()
    resumed.network.weight.grad = torch.ones(1, 2)
    resumed.optimizer.step()
    momentum = resumed.optimizer.state[resumed.network.weight]["momentum_buffer"].clone()
    resumed.on_train_start()
    assert (resumed.num_epochs, resumed.num_iterations_per_epoch, resumed.steps) == (10, 18, 0)
    kept = resumed.optimizer.state[resumed.network.weight]["momentum_buffer"]
    assert torch.equal(kept, momentum)


class Network(nn.Module):
    """Named as nnU-Net's: the decoder knows the encoder, so its tensors have two names."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {"stem": nn.Conv2d(1, width, 3), "deep": nn.Conv2d(width, 8, 3)}
        )
        self.decoder = nn.ModuleDict({"encoder": self.encoder, "up": nn.Conv2d(8, 4, 1)})
        self.decoder["seg_layers"] = nn.ModuleList([nn.Conv2d(4, 2, 1)])


def saved(path: Path, weights: dict[str, torch.Tensor], **others: Any) -> str:
    torch.save({"network_weights": weights, **others}, path)
    return str(path)


def test_weights_of_others_start_the_encoder_and_what_else_fits(tmp_path: Path) -> None:
    others, network = Network(), Network()
    last = network.decoder["seg_layers"][0].weight.clone()
    whole = {f"module.{name}": value for name, value in others.state_dict().items()}
    logged = {"logging": {"ema_fg_dice": [np.float64(0.5)]}, "_best_ema": np.float64(0.5)}
    load_weights(network, saved(tmp_path / "whole.pth", whole, **logged))
    for name in ("encoder.stem.weight", "decoder.encoder.deep.bias", "decoder.up.weight"):
        assert torch.equal(network.state_dict()[name], others.state_dict()[name]), name
    assert torch.equal(network.decoder["seg_layers"][0].weight, last)

    fresh = Network()
    decoder = fresh.decoder["up"].weight.clone()
    alone = {k: v for k, v in others.state_dict().items() if k.startswith("encoder.")}
    load_weights(fresh, saved(tmp_path / "encoder.pth", alone))
    assert torch.equal(fresh.encoder["deep"].weight, others.encoder["deep"].weight)
    assert torch.equal(fresh.decoder["up"].weight, decoder)


def test_weights_that_do_not_fit_are_refused_before_anything_is_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Network()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    class Runs:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    missing = {k: v for k, v in network.state_dict().items() if "deep.bias" not in k}
    for path, words in (
        (saved(tmp_path / "wide.pth", Network(6).state_dict()), "is [6, 1, 3, 3], and nnU-Net's plan has [4, 1, 3, 3]"),
        (saved(tmp_path / "few.pth", missing), "encoder.deep.bias is missing"),
        (saved(tmp_path / "code.pth", before, more=Runs()), "no checkpoint of tensors"),
        (str(Path(__file__)), "no checkpoint of tensors"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            load_weights(network, path)
        assert ended.value.code == 4
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.startswith(REFUSED)
        assert words in line
    assert not (tmp_path / "ran").exists()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
