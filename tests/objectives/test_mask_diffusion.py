"""Mask diffusion: what each strategy shows the network, where gradients go, sampling, runs that resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import radiffuse
from conftest import TINY
from radiffuse.config import (
    FIT,
    Fit,
    Losses,
    MaskDiffusion,
    Network,
    Sampling,
    Strategy,
    resolve_network,
)
from radiffuse.core.masks import logits_to_x_start, mask_to_x_start
from radiffuse.data.batches import Batch
from radiffuse.errors import InputError
from radiffuse.inference.mask_sampler import MaskSampler
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.nets.registry import load_network
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.objectives.mask_diffusion import SELF_CONDITIONED, MaskDenoising
from radiffuse.train.checkpoint import load_newest
from radiffuse.train.random import StepRandom

CLASSES = 3
FirstPass = Literal["noise", "true-mask"]
PROCESS = FIT["diffusion"].diffusion.process
STRATEGIES: tuple[Strategy, ...] = tuple(s for s in get_args(Strategy) if s != "none")
LOSSES = Losses(cross_entropy=0.0, dice=1.0, focal=20.0)


def random(total: int = 2, step: int = 0) -> StepRandom:
    return StepRandom(0, step, total=total, start=0, stop=total, device=torch.device("cpu"))


def network(strategy: Strategy, dims: int = 2, channels: int = 2) -> MaskDenoiser:
    unet = resolve_network(
        Network(width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8),
        spatial_dims=dims,
        in_channels=channels,
        out_channels=CLASSES,
    )
    conditioned = strategy in SELF_CONDITIONED
    result = MaskDenoiser.from_scratch(
        unet, self_condition=conditioned, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():  # every part says something
        for p in result.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return result


def task(
    strategy: Strategy, dims: int = 2, first_pass: FirstPass = "noise", **changes: object
) -> MaskDenoising:
    process = dataclasses.replace(PROCESS, **changes)  # type: ignore[arg-type]
    settings = MaskDiffusion(strategy=strategy, first_pass=first_pass, process=process)
    return MaskDenoising(network(strategy, dims), settings, LOSSES)


def batch(dims: int = 2, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = (2,) + (8,) * dims
    labels = torch.randint(0, CLASSES, shape, generator=generator)
    images = torch.rand((2, 2, *shape[1:]), generator=generator) * 2 - 1
    return Batch(images, labels, ("a", "b"))


class Spy(nn.Module):
    """Records what a network is shown, and whether gradients flow."""

    def __init__(self, inner: Callable[..., Tensor]) -> None:
        super().__init__()
        self.inner = inner
        self.calls: list[tuple[Tensor, Tensor, Tensor | None, bool]] = []

    def forward(
        self, images: Tensor, x_t: Tensor, t: Tensor, guess: Tensor | None = None
    ) -> Tensor:
        self.calls.append((x_t.detach(), t, guess, torch.is_grad_enabled()))
        return self.inner(images, x_t, t, guess)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_a_finite_loss_and_moves_every_weight(
    strategy: Strategy, dims: int
) -> None:
    learner = task(strategy, dims)
    loss = learner.loss(learner.network, batch(dims), random())
    loss.value.backward()
    assert loss.value.isfinite()
    assert set(loss.terms) == {"loss_dice", "loss_focal"}
    for name, p in learner.network.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_gradient_reaches_the_first_pass(strategy: Strategy) -> None:
    """The gradient is that of the second pass alone, given its inputs."""
    learner = task(strategy)
    spy = Spy(learner.network)
    learner.loss(spy, batch(), random()).value.backward()
    passes = [enabled for *_, enabled in spy.calls]
    assert passes == ([True] if strategy == "standard" else [False, True])
    found = {n: p.grad.clone() for n, p in learner.network.named_parameters() if p.grad is not None}
    learner.network.zero_grad()
    x_t, t, guess, _ = spy.calls[-1]
    given = batch()
    logits = learner.network(given.images, x_t, t, guess)
    again = task(strategy)
    t_drawn, weights = again.timesteps.draw(2, random().generator)
    assert torch.equal(t_drawn, t)
    from radiffuse.core.losses import segmentation_loss

    assert given.labels is not None
    (weights * segmentation_loss(logits, given.labels, LOSSES)[0]).mean().backward()
    for name, p in learner.network.named_parameters():
        torch.testing.assert_close(p.grad, found[name])


SCHEDULES = [
    ("linear", 1001, 0.0063),
    ("scaled-linear", 1000, 0.068),
    ("linear", 300, 0.219),
    ("linear", 100, 0.603),
]
"""T, and the weight of the true mask at the last timestep, sqrt(alphas_cumprod[T - 1]), worked out independently."""


def inputs(
    strategy: Strategy, labels: Tensor, first_pass: FirstPass = "noise", **process: object
) -> list[Tensor]:
    """What the passes are shown, for a true mask."""
    learner = task(strategy, first_pass=first_pass, **process)
    spy = Spy(learner.network)
    given, t = batch(), torch.tensor([80, 10])
    learner.predict(spy, given.images, mask_to_x_start(labels, CLASSES), t, random())
    return [x_t for x_t, *_ in spy.calls]


@pytest.mark.parametrize(("schedule", "total", "_"), SCHEDULES)
def test_recycling_sees_nothing_of_the_true_mask_and_the_others_do(
    schedule: str, total: int, _: float
) -> None:
    one, other = batch(seed=0).labels, batch(seed=1).labels
    assert one is not None
    assert other is not None
    process = {"schedule": schedule, "num_train_timesteps": total}
    for x, y in zip(
        *(inputs("recycle", labels, **process) for labels in (one, other)), strict=True
    ):
        assert torch.equal(x, y)
    for strategy in ("standard", "recycle-next", "self-condition", "self-condition-next"):
        x, y = (inputs(strategy, labels, **process)[-1] for labels in (one, other))
        assert not torch.equal(x, y)


def test_the_first_pass_of_recycling_is_where_sampling_starts() -> None:
    """Standard normal noise at T - 1: by its moments, over many pixels."""
    learner = task("recycle")
    spy = Spy(lambda images, x_t, *rest: torch.zeros_like(x_t))
    x_true, t = (
        mask_to_x_start(torch.zeros(2, 64, 64, dtype=torch.int64), CLASSES),
        torch.tensor([0, 9]),
    )
    learner.predict(spy, torch.zeros(2, 2, 64, 64), x_true, t, random())
    x_t = spy.calls[0][0].double()
    assert float(x_t.mean()) == pytest.approx(0, abs=0.03)
    assert float(x_t.std()) == pytest.approx(1, abs=0.03)
    sampler = MaskSampler(learner.network, learner.config, Sampling())
    assert sampler.timesteps[0] == PROCESS.num_train_timesteps - 1


def test_classes_are_fed_back_where_they_are_asked_for() -> None:
    """Class 2 is the most probable everywhere: at t = 0 the second pass sees its one-hot, and noise of 1 %."""
    favored = torch.tensor([0.1, 0.2, 0.3])[None, :, None, None].expand(2, CLASSES, 8, 8)
    given, t = batch(), torch.zeros(2, dtype=torch.int64)
    assert given.labels is not None
    seen = {}
    for what in ("classes", "probabilities"):
        learner = task("recycle")
        settings = MaskDiffusion(strategy="recycle", process=PROCESS, feed_back=what)  # type: ignore[arg-type]
        learner = MaskDenoising(learner.network, settings, LOSSES)
        spy = Spy(lambda images, x_t, *rest: favored)
        learner.predict(spy, given.images, mask_to_x_start(given.labels, CLASSES), t, random())
        seen[what] = spy.calls[1][0].mean((0, 2, 3)).tolist()
    assert seen["classes"] == pytest.approx([-1, -1, 1], abs=0.01)
    assert seen["probabilities"] == pytest.approx([-0.398, -0.335, -0.265], abs=0.01)  # 2 p - 1


@pytest.mark.parametrize(("schedule", "total", "weight"), SCHEDULES)
def test_the_released_code_lets_the_true_mask_into_the_first_pass(
    schedule: str, total: int, weight: float
) -> None:
    """Two masks and the same noise: the inputs differ by the weight of the difference of the masks."""
    process = {"schedule": schedule, "num_train_timesteps": total}
    masks = [torch.full((2, 8, 8), value) for value in (0, 1)]
    one, other = (inputs("recycle", labels, "true-mask", **process)[0] for labels in masks)
    difference = mask_to_x_start(masks[0], CLASSES) - mask_to_x_start(masks[1], CLASSES)
    expected = weight * difference
    torch.testing.assert_close(one - other, expected, atol=0.002, rtol=0.01)


def test_a_run_from_before_the_setting_keeps_its_first_pass(tmp_path: Path) -> None:
    from radiffuse.config.values import dated, to_dict

    settings = to_dict(FIT["diffusion"])
    assert dated(Fit, settings) == settings
    del settings["diffusion"]["first_pass"]
    assert dated(Fit, settings)["diffusion"]["first_pass"] == "true-mask"
    assert "first_pass" not in settings["diffusion"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_timesteps_of_both_passes(strategy: Strategy) -> None:
    learner = task(strategy, num_train_timesteps=4, timestep_sampling="uniform")
    seen = set()
    for step in range(40):
        spy = Spy(learner.network)
        learner.loss(spy, batch(), random(step=step))
        *first, (_, t, _, _) = spy.calls
        seen |= set(t.tolist())
        for _, earlier, _, _ in first:
            expected = {
                "recycle": torch.full_like(t, 3),
                "self-condition": t,
            }.get(strategy, t + 1)
            assert torch.equal(earlier, expected)
    # Fu et al. 2023: where a first pass stands above it, the second is at T - 2 or below.
    above = {"standard": 4, "recycle": 3, "recycle-next": 3, "self-condition": 4}.get(strategy, 3)
    assert seen == set(range(above))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_timesteps_are_enough(strategy: Strategy) -> None:
    learner = task(strategy, num_train_timesteps=2)
    assert learner.loss(learner.network, batch(), random()).value.isfinite()
    sampler = MaskSampler(learner.network, learner.config, Sampling(steps=2))
    assert sampler.timesteps == (1, 0)
    logits = sampler(batch().images, torch.Generator().manual_seed(0), every_step=True)
    assert logits.shape == (2, 2, CLASSES, 8, 8)
    result = sampler(batch().images, torch.Generator().manual_seed(0))
    assert result.shape == (1, 2, CLASSES, 8, 8)
    assert torch.equal(result[0], logits[-1])


@pytest.mark.parametrize("strategy", ["recycle", "recycle-next"])
def test_what_is_recycled_is_the_prediction_noised_afresh(strategy: Strategy) -> None:
    """With a network that always answers the same, the second input's mean is that answer."""
    answer = torch.randint(0, CLASSES, (2, 8, 8), generator=torch.Generator().manual_seed(9))
    sure = 50 * mask_to_x_start(answer, CLASSES)
    learner, t = task(strategy), torch.tensor([0, 0])  # next to no noise
    spy = Spy(lambda *given: sure)
    labels = batch().labels
    assert labels is not None
    learner.predict(spy, batch().images, mask_to_x_start(labels, CLASSES), t, random())
    assert torch.equal(spy.calls[-1][0].argmax(1), answer)


@pytest.mark.parametrize("strategy", SELF_CONDITIONED)
def test_a_guess_is_shown_half_the_time(strategy: Strategy) -> None:
    learner = task(strategy)
    shown = 0
    for step in range(100):
        spy = Spy(learner.network)
        learner.loss(spy, batch(), random(step=step))
        assert spy.calls[0][2] is None
        guess = spy.calls[1][2]
        assert guess is not None
        shown += int((guess.flatten(1).max(1).values > -1).sum())
    assert 70 <= shown <= 130


def test_self_condition_next_takes_the_reverse_step_with_its_estimate() -> None:
    learner = task("self-condition-next")
    spy = Spy(learner.network)
    labels = batch().labels
    assert labels is not None
    t = torch.tensor([0, 500])
    learner.predict(spy, batch().images, mask_to_x_start(labels, CLASSES), t, random())
    (x_next, _, _, _), (x_t, _, _, _) = spy.calls
    with torch.no_grad():
        guess = logits_to_x_start(learner.network(batch().images, x_next, t + 1))
    for i, at in enumerate((1, 501)):
        step = learner.process.posterior(at, at - 1)
        mean = step.x_start_coefficient * guess[i] + step.x_t_coefficient * x_next[i]
        assert float((x_t[i] - mean).abs().max()) < 6 * np.sqrt(step.variance)
        assert float((x_t[i] - mean).std()) == pytest.approx(np.sqrt(step.variance), rel=0.3)


@pytest.mark.parametrize(
    ("strategy", "first", "second"),
    [
        ("standard", None, (0.7028, 0.0, 0.7114)),
        ("recycle", (0.0, 0.0, 1.0), (0.0, 0.7028, 0.7114)),
        ("recycle-next", (0.0222, 0.0, 0.9998), (0.0, 0.7028, 0.7114)),
        ("self-condition", (0.7028, 0.0, 0.7114), (0.7028, 0.0, 0.7114)),
        ("self-condition-next", (0.0222, 0.0, 0.9998), (0.0004, 0.7024, 0.7114)),
    ],
)
def test_what_either_pass_is_shown_by_hand(
    strategy: Strategy, first: tuple[float, ...] | None, second: tuple[float, ...]
) -> None:
    """Two timesteps of the cosine schedule, worked by hand, and a network that always gives the same answer.

    alphas_cumprod is cos(.508 pi / 2.016)^2 / cos(.008 pi / 2.016)^2 = .4939 at 0 and, with the cap on beta, a
    thousandth of it at 1: the true mask weighs .7028 and .0222. The posterior between the two has beta = .999, so the
    estimate weighs .7028 x .999 / .9995 = .7024, x_t weighs .0316 x .5061 / .9995 = .0160, and the variance is
    .999 x .5061 / .9995 = .5058. Given are the weights of the true mask and of the answer, and the spread of the rest.
    """
    generator = torch.Generator().manual_seed(3)
    true, answer = torch.randint(0, CLASSES, (2, 1, 64, 64), generator=generator)
    x_true, x_answer = mask_to_x_start(true, CLASSES), mask_to_x_start(answer, CLASSES)
    learner = task(strategy, num_train_timesteps=2, schedule="cosine")
    spy = Spy(lambda *given: 50 * x_answer)
    images, t = torch.zeros(1, 2, 64, 64), torch.tensor([0])
    learner.predict(spy, images, x_true, t, random(total=1))
    shown = [first, second] if first else [second]
    assert len(spy.calls) == len(shown)
    parts = torch.stack([x_true.flatten(), x_answer.flatten()], dim=1)
    for (x_t, *_), (of_true, of_answer, spread) in zip(spy.calls, shown, strict=True):
        weights = torch.linalg.lstsq(parts, x_t.flatten()[:, None]).solution
        assert weights.flatten().tolist() == pytest.approx([of_true, of_answer], abs=0.05)
        rest = x_t.flatten() - (parts @ weights).flatten()
        assert float(rest.std()) == pytest.approx(spread, rel=0.03)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_losses_are_weighed_and_remembered(strategy: Strategy) -> None:
    """A network that knows nothing has a cross-entropy of log 3 at every timestep, so the weights show."""
    below = 0 if strategy in ("standard", "self-condition") else 1
    process = dataclasses.replace(
        PROCESS, num_train_timesteps=4 + below, timestep_sampling="loss-aware"
    )
    losses = Losses(cross_entropy=1.0, dice=0.0, focal=0.0)
    settings = MaskDiffusion(strategy=strategy, process=process)
    learner = MaskDenoising(network(strategy), settings, losses)
    for _ in range(10):  # a history of 1, 0, 0, 0: p = .9925, .0025, .0025, .0025
        learner.timesteps.update(torch.arange(4), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    weight = {0: 1 / (4 * 0.9925)} | dict.fromkeys((1, 2, 3), 1 / (4 * 0.0025))
    rare = 0
    for step in range(40):
        if rare:
            break
        before = learner.state_dict()["counts"].clone()
        spy = Spy(lambda images, x_t, *rest: torch.zeros_like(x_t, requires_grad=True))
        value = learner.loss(spy, large_batch(), random(total=16, step=step)).value
        t = spy.calls[-1][1]
        rare += int((t > 0).sum())
        expected = np.log(3) * np.mean([weight[int(i)] for i in t])
        assert float(value.detach()) == pytest.approx(expected, rel=1e-4)
        seen = learner.state_dict()["counts"] - before
        assert torch.equal(seen, torch.bincount(t, minlength=4))
    assert rare
    history = learner.state_dict()["history"]
    for i in t.unique().tolist():  # what is remembered is the loss before its weight
        assert float(history[i].max()) == pytest.approx(np.log(3), rel=1e-5)


def large_batch() -> Batch:
    labels = torch.zeros((16, 4, 4), dtype=torch.int64)
    return Batch(torch.zeros(16, 2, 4, 4), labels, tuple("abcdefghijklmnop"))


# ------------------------------------------------------------------------------------------------- sampling


class Perfect(nn.Module):
    """Knows the mask."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.classes = CLASSES
        self.logits = 50 * mask_to_x_start(labels, CLASSES)
        self.told: list[float] = []

    def forward(
        self, images: Tensor, x_t: Tensor, t: Tensor, guess: Tensor | None = None
    ) -> Tensor:
        self.told.append(float(t[0]))
        return self.logits


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_perfect_network_is_right_at_every_step(sampler: str, steps: int) -> None:
    given = batch()
    assert given.labels is not None
    perfect = Perfect(given.labels)
    sampling = Sampling(sampler=sampler, steps=steps)  # type: ignore[arg-type]
    draw = MaskSampler(perfect, PROCESS, sampling)  # type: ignore[arg-type]
    logits = draw(given.images, torch.Generator().manual_seed(0), every_step=True)
    assert len(logits) == steps
    for step in logits:
        assert torch.equal(step.argmax(1), given.labels)


def test_the_network_is_told_training_timesteps_and_only_on_request_those_of_the_release() -> None:
    given = batch()
    assert given.labels is not None
    for legacy, expected in (
        (False, [1000, 750, 500, 250, 0]),
        (True, [1000, 799.8, 599.6, 399.4, 199.2]),
    ):
        perfect = Perfect(given.labels)
        draw = MaskSampler(perfect, PROCESS, Sampling(legacy_timesteps=legacy))  # type: ignore[arg-type]
        draw(given.images, torch.Generator().manual_seed(0))
        assert perfect.told == pytest.approx(expected, abs=1e-3)


def test_ddim_is_a_function_of_its_first_noise_and_ddpm_draws() -> None:
    learner = task("standard")
    images = batch().images
    results = {}
    for sampler in ("ddim", "ddpm"):
        draw = MaskSampler(learner.network, PROCESS, Sampling(sampler=sampler))  # type: ignore[arg-type]
        results[sampler] = draw(images, torch.Generator().manual_seed(0))
        assert torch.equal(results[sampler], draw(images, torch.Generator().manual_seed(0)))
    noise = torch.Generator().manual_seed(0)
    torch.randn((2, CLASSES, 8, 8), generator=noise)
    after = noise.get_state()
    drawn = torch.Generator().manual_seed(0)
    MaskSampler(learner.network, PROCESS, Sampling(sampler="ddim"))(images, drawn)
    assert torch.equal(drawn.get_state(), after)  # nothing drawn after the start
    assert not torch.equal(results["ddim"][-1], results["ddpm"][-1])


def test_sampling_is_as_many_passes_as_steps() -> None:
    learner = task("self-condition")
    spy = Spy(learner.network)
    spy.classes = CLASSES  # type: ignore[assignment]
    MaskSampler(spy, PROCESS, Sampling(steps=5))(  # type: ignore[arg-type]
        batch().images, torch.Generator().manual_seed(0)
    )
    assert len(spy.calls) == 5
    assert spy.calls[0][2] is None
    assert all(guess is not None for _, _, guess, _ in spy.calls[1:])


# ----------------------------------------------------------------------------------------------------- runs


def arguments(films: Path, out: Path, cache: Path, **changes: object) -> dict[str, object]:
    return {
        "data": films,
        "out": out,
        "method": "diffusion",
        "network": TINY,
        "plan": {"size": (32, 32)},
        "split": {"test": 0.4, "validation": 0.2},
        "training": {"steps": 4, "batch_size": 2, "log_every": 1, "checkpoint_every": 1, "keep_state": True,
                     "validate_every": 4, "warmup_steps": 1},
        "reader": {"cache": str(cache)},
        "machine": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
    } | changes  # fmt: skip


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_a_resumed_run_is_bit_identical(
    strategy: Strategy, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radiffuse.train import loop

    # Two timesteps, so that the history of loss-aware sampling is full before the second kill.
    process = {"process": {"num_train_timesteps": 2}, "sampling": {"steps": 2}}
    changes = {
        "diffusion": {"strategy": strategy} | (process if strategy != "none" else {}),
        "training": {
            "steps": 12,
            "batch_size": 4,
            "checkpoint_every": 5,
            "warmup_steps": 1,
            "keep_state": True,
        },
    }
    straight = radiffuse.fit(**arguments(films, tmp_path / "a", tmp_path / "c", **changes))
    original = loop.save_checkpoint

    def killed(folder: Path, checkpoint: object) -> None:
        original(folder, checkpoint)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            radiffuse.fit(**arguments(films, tmp_path / "b", tmp_path / "c", **changes))
    monkeypatch.setattr(loop, "save_checkpoint", original)
    resumed = radiffuse.fit(**arguments(films, tmp_path / "b", tmp_path / "c", **changes))
    one, other = (load_file(run.model / "model.safetensors") for run in (straight, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    states = [load_newest(run.state) for run in (straight, resumed)]
    for part in ("network", "optimizer", "task"):
        first, second = (state.tensors[part] for state in states if state is not None)
        assert all(torch.equal(first[name], second[name]) for name in first), part
    scores, again = ([r for r in run.log() if "loss" not in r] for run in (straight, resumed))
    assert scores == again
    assert "validation" in scores[0]


def test_runs_start_from_a_pretrained_one(films: Path, pretrained: Path, tmp_path: Path) -> None:
    source = load_network(pretrained / "model").state_dict()
    for strategy, kind in (("recycle", MaskDenoiser), ("none", SegmentingUNet)):
        chosen = {"strategy": strategy}
        given = arguments(films, tmp_path / strategy, tmp_path / "c", diffusion=chosen)
        del given["network"]
        run = radiffuse.fit(**given, from_=pretrained)
        trained = load_network(run.model)
        assert isinstance(trained, kind)
        name = "middle.before.conv1.weight"
        assert isinstance(trained.unet, nn.Module)
        ours = trained.unet.state_dict()[name]
        assert float((ours - source[name]).abs().max()) < 0.05  # four small steps away


def test_what_does_not_apply_is_refused(films: Path, tmp_path: Path) -> None:
    for changes, word in (
        ({"diffusion": {"process": {"prediction_type": "epsilon"}}}, 'prediction_type": "epsilon'),
        ({"diffusion": {"process": {"variance": "learned"}}}, 'variance": "learned'),
        ({"diffusion": {"sampling": {"steps": 2000}}}, "1001 timesteps"),
    ):
        with pytest.raises(InputError, match=word):
            radiffuse.fit(**arguments(films, tmp_path / "x", tmp_path / "c", **changes))
    assert not (tmp_path / "x").exists()
