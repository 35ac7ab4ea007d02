"""Too little memory: passes shrink and the result stays; where it cannot, one line says what to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_loop import CPU, Killed, Plain, Toy, same
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from radiffuse.config import (
    AutoencoderSettings,
    Diffusion,
    DinoSettings,
    Losses,
    MaskDiffusion,
    Training,
    UNetConfig,
)
from radiffuse.core.timesteps import LossAwareTimesteps
from radiffuse.data.batches import Batch
from radiffuse.errors import InputError, from_surroundings, is_out_of_memory
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.nets.unet import UNet
from radiffuse.objectives.denoising import Denoising
from radiffuse.objectives.mask_diffusion import MaskDenoising
from radiffuse.objectives.segmentation import CustomSegmentation, Segmentation
from radiffuse.synthesis.autoencoder import Autoencoding
from radiffuse.synthesis.dino import DinoLearning
from radiffuse.synthesis.views import Views
from radiffuse.train import loop
from radiffuse.train.checkpoint import load_newest
from radiffuse.train.device import make_fabric
from radiffuse.train.labelled import HeldOut
from radiffuse.train.loop import Trained, train
from radiffuse.train.passes import BeforeStep, Passes
from radiffuse.train.random import StepRandom
from radiffuse.train.run import Run
from radiffuse.train.start_run import start_run
from radiffuse.train.step import Step
from radiffuse.train.task import Loss

BASE = Training(
    steps=4,
    batch_size=4,
    learning_rate=1e-3,
    average_decay=0.9,
    log_every=1,
    checkpoint_every=1,
    validate_every=0,
)
UNET = UNetConfig(
    spatial_dims=2,
    in_channels=1,
    out_channels=1,
    width=8,
    multipliers=(1, 2),
    blocks=1,
    attention_factors=(2,),
    head_channels=8,
)


def batches(step: int, rank: int = 0, world: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(4, 1, 16, 16, generator=generator).clamp(-1, 1)
    labels = (images[:, 0] > 0).long()
    labels[0, :5] = 255
    return Batch(images, labels, ("a", "b", "c", "d"))


class Small:
    """A task on a machine with room for a few images: more at once, and memory runs out, after the loss."""

    def __init__(self, inner: object, room: int, error: Exception, from_step: int = 1) -> None:
        self.inner, self.room, self.error, self.from_step = inner, room, error, from_step
        self.seen: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def state_dict(self) -> Mapping[str, Tensor]:
        return self.inner.state_dict()  # type: ignore[attr-defined]

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.inner.load_state_dict(state)  # type: ignore[attr-defined]

    def losses_of(self, batch: Batch) -> tuple[object, ...]:
        return (self.loss,)

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        found: Loss = self.inner.loss(network, batch, random)  # type: ignore[attr-defined]
        self.seen.append(len(batch))
        if len(batch) > self.room and sum(self.seen) > 4 * self.from_step:
            raise self.error
        return found


CUDA = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has")
ALLOCATOR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
)


def segmentation() -> Segmentation:
    unet = dataclasses.replace(UNET, out_channels=2)
    generator = torch.Generator().manual_seed(0)
    network = SegmentingUNet.from_scratch(unet, timestep=0, generator=generator)
    return Segmentation(network, Losses(dice=1.0, focal=1.0))


def mask_diffusion(sampling: str) -> MaskDenoising:
    unet = dataclasses.replace(UNET, in_channels=3, out_channels=2)
    inner = UNet(unet)
    inner.initialize(torch.Generator().manual_seed(0))
    network = MaskDenoiser(inner, 2, self_condition=False)
    diffusion = Diffusion(num_train_timesteps=4, timestep_sampling=sampling)  # type: ignore[arg-type]
    return MaskDenoising(network, MaskDiffusion(process=diffusion), Losses())


def denoising(diffusion: Diffusion) -> Denoising:
    network = UNet(UNET)
    network.initialize(torch.Generator().manual_seed(0))
    return Denoising(network, diffusion)


def loss_aware() -> Denoising:
    task = denoising(Diffusion(num_train_timesteps=3, timestep_sampling="loss-aware"))
    sampler = task.timesteps
    assert isinstance(sampler, LossAwareTimesteps)
    sampler.counts.fill_(20)  # it has seen enough to choose by
    sampler.history.copy_(torch.tensor([0.1, 1.0, 3.0])[:, None])
    return task


TASKS = {
    "denoising": lambda: denoising(Diffusion(num_train_timesteps=10)),
    "loss-aware": loss_aware,
    "segmentation": segmentation,
    "recycle": lambda: mask_diffusion("uniform"),
    "autoencoding": lambda: Autoencoding(AutoencoderSettings(channels=(8, 16)), 16, 1, None),
}


def trained(folder: Path, task: object, training: Training = BASE) -> Trained:
    with start_run(folder, "toy", {}) as run:
        return train(task, batches, run, training, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [CUDA, ALLOCATOR, MemoryError()], ids=["cuda", "cpu", "python"])
@pytest.mark.parametrize("name", TASKS)
def test_smaller_passes_learn_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, error: Exception
) -> None:
    if error is not CUDA and name != "denoising":
        pytest.skip("one task tells the kinds of errors apart")
    trained(tmp_path / "whole", TASKS[name]())
    capsys.readouterr()
    task = Small(TASKS[name](), 1, error)
    trained(tmp_path / "parts", task)
    lines = capsys.readouterr().err.splitlines()
    said = [x for x in lines if x.startswith("radiffuse: ") and "loss-aware" not in x]
    assert len(said) == 1
    assert "4 images at a time do not fit into memory; going on with 2 or fewer" in said[0]
    assert task.seen == [4, 4, 2, 1, 1, 1, 1] + [1] * 8  # step 0 whole; step 1 thrice; then by one
    losses = [
        [row["loss"] for row in Run(tmp_path / run).log() if "loss" in row]
        for run in ("whole", "parts")
    ]
    assert losses[1][:2] == pytest.approx(losses[0][:2], rel=1e-4)
    # Later ones less exactly: Adam makes a full step even of a gradient that is nothing but rounding.
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    first, second = (load_newest(tmp_path / name / "state") for name in ("whole", "parts"))
    assert first is not None
    assert second is not None
    for key, value in first.tensors["task"].items():
        torch.testing.assert_close(value, second.tensors["task"][key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_passes_add_up_to_the_gradient_of_the_step(name: str) -> None:
    """Each task's gradient, in one pass, in two of three and one, and image by image."""
    fabric, gradients = make_fabric(CPU), []
    for micro in (4, 3, 1):
        task = TASKS[name]()
        torch.manual_seed(0)
        network = task.build()
        with torch.no_grad():
            for parameter in network.parameters():  # no layer that starts at 0 hides another
                parameter += 0.1 * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(1)
                )
        model = fabric.setup(network)
        undo = BeforeStep(network, task)
        Step(fabric, task, network, model, None, BASE, Passes(4, "")).gradient(batches(7), 7)
        undo()  # as after a pass that failed
        step = Step(fabric, task, network, model, None, BASE, Passes(micro, ""))
        loss, terms = step.gradient(batches(7), 7)
        found = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        gradients.append((loss, found, terms))
    for loss, found, terms in gradients[1:]:
        assert loss == pytest.approx(gradients[0][0], rel=1e-5)
        assert terms == pytest.approx(gradients[0][2], rel=1e-4)  # loss_q0 as well, of some images
        assert float((found - gradients[0][1]).norm() / found.norm()) < 1e-5


def test_masks_of_validation_are_the_same_in_passes_of_any_size() -> None:
    """Else the best weights after memory ran out would be chosen by other noise than those before."""
    task, batch = mask_diffusion("uniform"), batches(3)
    task.sampling = dataclasses.replace(task.sampling, sampler="ddpm", steps=4)
    task.held_out = HeldOut(4, batch.part)
    network = task.build().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(1)
            )
    scores = []
    for task.at_once in (4, 3, 1):
        scores.append(task.validate(network, torch.device("cpu"))["dice"])
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-3)


def test_all_processes_keep_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sharded weights are gathered by all or by none, although each process rounds in its own way."""
    monkeypatch.setattr(loop, "mean_over_ranks", lambda score: torch.full_like(score, 0.5))
    for score in (0.49999, 0.50001):
        state: Any = SimpleNamespace(
            task=SimpleNamespace(validate=lambda *_, score=score: {"dice": score}),
            average=AveragedModel(nn.Linear(1, 1)),
            model=nn.Linear(1, 1),
            step=SimpleNamespace(training=BASE, fabric=SimpleNamespace(world_size=2)),
            passes=Passes(2, "run", 2),
            log=SimpleNamespace(validation=lambda *_: None),
            device=torch.device("cpu"),
            judged_by="dice",
            best=(1, 0.5, {}),
        )
        loop._State.validate(state, 2)
        assert state.best[:2] == (2, 0.5)


def test_a_shrunk_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    straight = trained(tmp_path / "straight", Small(Plain(), 2, CUDA))

    def until(step: int, rank: int = 0, world: int = 1) -> Batch:
        if step == 3:
            raise Killed
        return batches(step)

    with pytest.raises(Killed), start_run(tmp_path / "run", "toy", {}) as run:
        train(Small(Plain(), 2, CUDA), until, run, BASE, CPU)  # type: ignore[arg-type]
    # The machine has room again, and the rest must round as before all the same.
    task = Small(Plain(), 4, CUDA)
    resumed = trained(tmp_path / "run", task)
    assert task.seen == [2, 2]
    same(straight.raw.state_dict(), resumed.raw.state_dict())
    same(straight.average.state_dict(), resumed.average.state_dict())


def test_the_teacher_of_dino_moves_once(tmp_path: Path) -> None:
    settings = DinoSettings(width=64, depth=1, patch=4, prototypes=16, local_crops=1, spread=0.0)

    def views(step: int, rank: int = 0, world: int = 1) -> Views:
        generator = torch.Generator().manual_seed(step)
        large = torch.randn(4, 2, 1, 16, 16, generator=generator)
        small = torch.randn(4, 1, 1, 8, 8, generator=generator)
        return Views(large, None, ("a", "b", "c", "d"), small)

    found = []
    for room in (4, 2):
        torch.manual_seed(0)
        task = Small(DinoLearning(settings, 16, 1), room, CUDA)
        with start_run(tmp_path / str(room), "toy", {}) as run:
            found.append(train(task, views, run, BASE, CPU).raw.state_dict())  # type: ignore[arg-type]
    assert int(found[0]["step"]) == int(found[1]["step"]) == 3
    for name in ("center", "square", "pending"):
        torch.testing.assert_close(found[1][name], found[0][name], rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("of_each", [True, False])
def test_a_loss_that_is_one_number_for_all_images_is_not_promised_to_stay(
    of_each: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over passes it is the mean of their numbers, which a mean over labelled voxels of the batch is not."""

    def function(logits: Tensor, labels: Tensor) -> Tensor:
        seen = labels != 255
        wrong = (logits[:, 1] - labels).square() * seen
        return wrong.sum((1, 2)) / seen.sum((1, 2)) if of_each else wrong.sum() / seen.sum()

    found = []
    for room in (4, 2):
        network = nn.Conv2d(1, 2, 1)
        nn.init.constant_(network.weight, 0.1)
        nn.init.zeros_(network.bias)
        task = Small(CustomSegmentation(network, function), room, CUDA)
        trained(tmp_path / str(room), task)
        found.append([row["loss"] for row in Run(tmp_path / str(room)).log() if "loss" in row])
    assert np.allclose(*found, atol=1e-6) == of_each
    said = capsys.readouterr().err
    assert ("with the same result (--micro-batch)" in said) == of_each
    assert ("one number for all images of a pass" in said) == (not of_each)


def test_one_image_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one image at a time does not fit.*Lower --size") as error:
        trained(tmp_path / "run", Small(Plain(), 0, CUDA))
    assert "\n" not in str(error.value)
    newest = load_newest(tmp_path / "run" / "state")
    assert newest is not None
    assert newest.step == 1  # what was done is there
    resumed = trained(tmp_path / "run", Plain())
    straight = trained(tmp_path / "straight", Plain())
    same(straight.raw.state_dict(), resumed.raw.state_dict())


def test_batch_norm_and_dropout_do_not_shrink_behind_the_users_back(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch as a whole.*--micro-batch 2"):
        trained(tmp_path / "run", Small(Toy(), 2, CUDA))
    network = nn.Linear(1, 1)
    whole = type("Task", (), {"whole_batch": True})()
    with pytest.raises(InputError, match="batch as a whole"):
        Passes(8, "run").shrink(network, whole, "no room")
    with pytest.raises(InputError, match="several devices"):
        Passes(8, "run", world=2).shrink(network, Toy(), "no room")
    frozen = nn.Sequential(nn.BatchNorm2d(1).eval(), nn.Dropout(0.0))
    passes = Passes(8, "run")
    passes.shrink(frozen, Toy(), "no room")
    assert passes.size == 4


def test_a_pass_of_which_batch_normalization_sees_one_number_is_one_line(tmp_path: Path) -> None:
    class Pooled(Toy):
        def build(self) -> nn.Module:
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1))

    trained(tmp_path / "batch", Pooled())
    one = dataclasses.replace(BASE, micro_batch=1)
    with pytest.raises(InputError, match=r"run: a pass of one small image.*--micro-batch"):
        trained(tmp_path / "run", Pooled(), one)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"):
        trained(tmp_path / "run", Small(Plain(), 2, RuntimeError("shapes do not fit: shape 3")))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert from_surroundings(ValueError("anything")) is None
    assert from_surroundings(FileNotFoundError(2, "No such file")) is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(28, "No space left on device", "/data/x"),
            "/data/x: cannot be used (No space left",
        ),
        (OSError(30, "Read-only file system"), "disk: cannot be used (Read-only"),
        (OSError("4096 requested and 512 written"), "No space left on device"),
        (
            ValueError("Error while serializing: I/O error: No space left on device"),
            "No space left",
        ),
        (CUDA, "memory: ran out (CUDA out of memory. Tried to allocate 20.00 MiB)"),
        (MemoryError(), "memory: ran out (MemoryError)"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error: Exception, words: str) -> None:
    line = str(from_surroundings(error))
    assert words in line
    assert "\n" not in line
    assert "the same command goes on" in line
