"""Image and mask together: the best answer in closed form, what is given and what is missing, where gradients go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import radiffuse
from conftest import TINY
from radiffuse.config import (
    FIT,
    Diffusion,
    Joint,
    Losses,
    Network,
    Sampling,
    resolve_network,
)
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.core.masks import mask_to_x_start
from radiffuse.core.sampling import Sampler, inference_timesteps, sample
from radiffuse.data.augment import Change
from radiffuse.data.batches import Batch
from radiffuse.data.plan import Plan
from radiffuse.data.pool import PooledBatch
from radiffuse.errors import InputError
from radiffuse.inference.mask_sampler import MaskSampler
from radiffuse.inference.pairs import pair_batches
from radiffuse.nets.joint_denoiser import CLEAN, JointDenoiser
from radiffuse.nets.registry import load_network
from radiffuse.nets.unet import UNet
from radiffuse.objectives.joint import JointDenoising
from radiffuse.train.checkpoint import load_newest
from radiffuse.train.inherit import inherit
from radiffuse.train.random import StepRandom
from radiffuse.train.run import Run
from radiffuse.train.start import Start

SHARE, MEANS, SPREAD = 0.3, (-0.5, 0.4), 0.25
"""Each pixel is of class 1 with this probability; its value is normal, with the mean of its class."""
CROSS_ENTROPY = Losses(cross_entropy=1.0)
MODES = {"both": (0.0, 0.0), "segment": (1.0, 0.0), "draw": (0.0, 1.0)}
"""Fractions of images and masks that are given."""


def random(total: int, step: int = 0) -> StepRandom:
    return StepRandom(0, step, total=total, start=0, stop=total, device=torch.device("cpu"))


class Best(JointDenoiser):
    """The conditional mean of the image, as the process predicts it, and the logits of the mask, in closed form.

    Args:
        process: The noising process.
        scale: Of the logits; 1 is right.
        shift: Added to the answer for the image; 0 is right.
    """

    def __init__(self, process: Diffusion, scale: float = 1.0, shift: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.classes, self.channels = 2, 1
        self.process, self.scale, self.shift = GaussianDiffusion(process), scale, shift

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at timesteps (B,), 1 and 0 where a part is given: (B, 1, 1)."""
        at = [self.process.variances(int(step)) for step in t]
        alpha, sigma = torch.tensor(at, dtype=torch.float64).sqrt().unbind(1)
        return alpha[:, None, None], sigma[:, None, None]

    def forward(self, image: Tensor, mask: Tensor, t: Tensor) -> Tensor:
        x, y = image[:, 0].double(), mask.double()
        (alpha, sigma), (signal, noise) = self.levels(t[:, 0]), self.levels(t[:, 1])
        variance = (alpha * SPREAD) ** 2 + sigma**2
        means = torch.tensor(MEANS, dtype=torch.float64)
        odds = torch.log(torch.tensor(SHARE / (1 - SHARE)))
        odds = odds + ((x - alpha * means[0]) ** 2 - (x - alpha * means[1]) ** 2) / (2 * variance)
        missing = (t[:, 1] == self.process.num_train_timesteps - 1)[:, None, None]
        told = 2 * signal * (y[:, 1] - y[:, 0]) / noise.square().clamp(min=1e-6)
        odds = odds + told.masked_fill(missing, 0)
        p = odds.sigmoid()
        gain = alpha * SPREAD**2 / variance
        given = [mean + gain * (x - alpha * mean) for mean in means]
        x_start = (1 - p) * given[0] + p * given[1]
        # Where the image is given no answer is asked for.
        epsilon = (x - alpha * x_start) / sigma.clamp(min=1e-6)
        answer = epsilon if self.process.config.prediction_type == "epsilon" else x_start
        logits = self.scale * torch.stack([torch.zeros_like(odds), odds], dim=1)
        return torch.cat([answer[:, None] + self.shift, logits], dim=1).float()


def pairs(count: int, side: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = (torch.rand((count, side, side), generator=generator) < SHARE).long()
    means = torch.tensor(MEANS)[labels]
    values = means + SPREAD * torch.randn(labels.shape, generator=generator)
    return values[:, None], labels


def task(mode: str, network: JointDenoiser, process: Diffusion) -> JointDenoising:
    image, mask = MODES[mode]
    settings = Joint(given_image=image, given_mask=mask, process=process)
    return JointDenoising(network, settings, CROSS_ENTROPY)


@pytest.mark.parametrize("kind", ["epsilon", "x_start"])
@pytest.mark.parametrize("mode", MODES)
def test_the_loss_is_least_at_the_conditional_mean(mode: str, kind: str) -> None:
    """Of the closed form, and of the same with other logits, or another answer for the image."""
    process = Diffusion(num_train_timesteps=100, prediction_type=kind)  # type: ignore[arg-type]
    images, labels = pairs(16)
    batch = Batch(images, labels, ("a",) * 16)

    def loss(**changes: float) -> float:
        network = Best(process, **changes)
        return float(task(mode, network, process).loss(network, batch, random(16)).value)

    best = loss()
    for change in ({"scale": 0.8}, {"scale": 1.25}, {"shift": 0.1}, {"shift": -0.1}):
        silent = mode == ("segment" if "shift" in change else "draw")
        assert (loss(**change) == best) if silent else (loss(**change) > best + 1e-5), change


def test_segmenting_samples_the_posterior_of_the_mask() -> None:
    """Of a gray value where both classes are possible, by Bayes: logit p = logit(share) + difference of squares."""
    process, value = Diffusion(num_train_timesteps=100), -0.1
    odds = (
        SHARE
        / (1 - SHARE)
        * 2.718281828 ** (((value - MEANS[0]) ** 2 - (value - MEANS[1]) ** 2) / (2 * SPREAD**2))
    )
    images = torch.full((2, 1, 64, 64), value)
    network = Best(process)
    once = MaskSampler(network, process, Sampling(steps=1))
    probability = once(images, torch.Generator())[0].softmax(1)[:, 1]
    expected = torch.full_like(probability, odds / (1 + odds))
    torch.testing.assert_close(probability, expected, atol=1e-4, rtol=1e-4)
    many = MaskSampler(network, process, Sampling(steps=25))
    drawn = many(images, torch.Generator().manual_seed(1))[0].argmax(1).float()
    assert float(drawn.mean()) == pytest.approx(odds / (1 + odds), abs=0.03)


def test_given_masks_draw_images_of_their_classes() -> None:
    process = Diffusion(num_train_timesteps=100, prediction_type="x_start")
    network, (_, labels) = Best(process), pairs(4)
    masks = mask_to_x_start(labels, 2)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        both = torch.stack([t, torch.full_like(t, CLEAN)], dim=1)
        return network.parts(network(x_t, masks, both))[0]

    drawn = sample(
        GaussianDiffusion(process), denoise, (4, 1, 64, 64), inference_timesteps(100, 100),
        generator=torch.Generator().manual_seed(0), clip=False,
    )[:, 0]  # fmt: skip
    for value, mean in enumerate(MEANS):
        assert float(drawn[labels == value].mean()) == pytest.approx(mean, abs=0.02)
        assert float(drawn[labels == value].std()) == pytest.approx(SPREAD, rel=0.1)


@pytest.mark.parametrize(("kind", "sampler"), [("epsilon", "ddpm"), ("x_start", "ddim")])
def test_drawn_pairs_have_the_joint_distribution(
    kind: Literal["epsilon", "x_start"], sampler: Sampler
) -> None:
    """How often each class is drawn, and mean and spread of the gray values within it."""
    process = Diffusion(num_train_timesteps=100, prediction_type=kind)
    plan = Plan(2, ("image",), ("background", "a"), (64, 64))
    network = Best(process)
    network.unused = nn.Parameter(torch.zeros(1))  # says on which device it is
    ((_, images, masks),) = pair_batches(
        network, process, plan, count=2, steps=100, sampler=sampler, seed=1
    )
    assert images.shape == (2, 1, 64, 64)
    assert masks.shape == (2, 64, 64)
    assert masks.mean() == pytest.approx(SHARE, abs=0.03)
    for value, mean in enumerate(MEANS):
        assert images[:, 0][masks == value].mean() == pytest.approx(mean, abs=0.03)
        assert images[:, 0][masks == value].std() == pytest.approx(SPREAD, rel=0.12)


class Spy(nn.Module):
    """Keeps what it is shown, and answers nothing."""

    def forward(self, image: Tensor, mask: Tensor, t: Tensor) -> Tensor:
        self.image, self.mask, self.t = image, mask, t
        return torch.cat([torch.zeros_like(image), torch.zeros_like(mask)], dim=1)


def test_parts_are_given_noised_or_missing_as_often_as_the_settings_say() -> None:
    process = Diffusion(num_train_timesteps=50)
    settings = Joint(given_image=0.4, given_mask=0.2, missing=0.5, process=process)
    spy, (images, labels) = Spy(), pairs(4000, side=2)
    learner = JointDenoising(Best(process), settings, CROSS_ENTROPY)
    learner.loss(spy, Batch(images, labels, ("a",) * 4000), random(4000))
    image, mask = spy.t.unbind(1)
    given_image, given_mask, missing = image == CLEAN, mask == CLEAN, mask == 49
    assert float(given_image.float().mean()) == pytest.approx(0.4, abs=0.03)
    assert float(given_mask.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert not bool((given_image & given_mask).any())
    assert float(missing[given_image].float().mean()) == pytest.approx(0.5, abs=0.05)
    x_start = mask_to_x_start(labels, 2)
    assert torch.equal(spy.image[given_image], images[given_image])
    assert torch.equal(spy.mask[given_mask], x_start[given_mask])
    pure = spy.mask[missing]
    told = (pure * x_start[missing]).mean()  # what is missing says nothing of the truth
    assert float(told) == pytest.approx(0, abs=0.03)
    assert float(pure.std()) == pytest.approx(1, abs=0.03)
    both = ~given_image & ~given_mask
    assert len({tuple(t.tolist()) for t in spy.t[both]}) > 500  # each part at its own timestep


def small(dims: int = 2, classes: int = 2, seed: int = 1) -> JointDenoiser:
    unet = resolve_network(
        Network(width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8),
        spatial_dims=dims,
        in_channels=1,
        out_channels=classes,
    )
    generator = torch.Generator().manual_seed(seed)
    return JointDenoiser.from_scratch(unet, timesteps=50, generator=generator)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_pool_teaches_the_image_part_alone(dims: int) -> None:
    process, network = Diffusion(num_train_timesteps=50), small(dims)
    learner = JointDenoising(network, Joint(process=process), CROSS_ENTROPY)
    images = torch.rand((2, 1, *(8,) * dims)) * 2 - 1
    labels = torch.ones((2, *(8,) * dims), dtype=torch.int64)
    batch = PooledBatch(images, labels, ("a", "b"), images, (Change(None),) * 2, 1.0)
    of_labels, of_pool = learner.losses_of(batch)
    of_pool(network, batch, random(2)).value.backward()
    head = network.unet.head.weight.grad
    assert head is not None
    assert network.unet.head.bias.grad is not None
    assert (head[1:] == 0).all()
    assert (network.unet.head.bias.grad[1:] == 0).all()
    assert (head[:1] != 0).any()
    network.zero_grad()
    of_labels(network, batch, random(2)).value.backward()
    head = network.unet.head.weight.grad
    assert head is not None
    assert (head[1:] != 0).any()
    seen = Spy()
    learner.pool_loss(seen, batch, random(2))
    assert seen.t[:, 1].tolist() == [49, 49]
    assert len(learner.losses_of(Batch(images, labels, ("a", "b")))) == 1


def test_ignored_pixels_teach_no_mask() -> None:
    process = Diffusion(num_train_timesteps=50)
    images, labels = pairs(2, side=8)
    labels[:, :4] = 255
    found: list[Tensor] = []

    class Kept(nn.Module):
        def forward(self, image: Tensor, mask: Tensor, t: Tensor) -> Tensor:
            output = torch.zeros((2, 3, 8, 8), requires_grad=True)
            found.append(output)
            return output * 1.0

    learner = JointDenoising(small(), Joint(given_mask=0.0, process=process), CROSS_ENTROPY)
    learner.loss(Kept(), Batch(images, labels, ("a", "b")), random(2)).value.backward()
    gradient = found[0].grad
    assert gradient is not None
    assert (gradient[:, 1:, :4] == 0).all()
    assert (gradient[:, 1:, 4:] != 0).any()


class ByPixel(JointDenoiser):
    """A network of single pixels, which sees both timesteps beside them."""

    def __init__(self, dims: int) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(0)
        self.classes, self.channels = 2, 1
        layer = nn.Conv2d if dims == 2 else nn.Conv3d
        self.layers = nn.Sequential(
            layer(5, 32, 1), nn.SiLU(), layer(32, 32, 1), nn.SiLU(), layer(32, 3, 1)
        )

    def forward(self, image: Tensor, mask: Tensor, t: Tensor) -> Tensor:
        times = (t.reshape(*t.shape, *[1] * (image.ndim - 2)) + 1) / 50
        x = torch.cat([image, mask, times.expand(-1, -1, *image.shape[2:])], dim=1)
        found: Tensor = self.layers(x)
        return found


@pytest.mark.parametrize("dims", [2, 3])
def test_a_mask_that_is_a_function_of_the_image_is_found(dims: int) -> None:
    """Bright is class 1: learned from random images, scored on others; volumes of a single slice are films."""
    process, network = Diffusion(num_train_timesteps=50), ByPixel(dims)
    learner = JointDenoising(network, Joint(process=process), CROSS_ENTROPY)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)

    def batch(count: int) -> Batch:
        shape = (count, 1, 16, 16) if dims == 2 else (count, 1, 1, 16, 16)
        images = torch.rand(shape, generator=generator) * 2 - 1
        return Batch(images, (images[:, 0] > 0.2).long(), ("a",) * count)

    for step in range(400):
        optimizer.zero_grad()
        learner.loss(network, batch(8), random(8, step)).value.backward()
        optimizer.step()
    test = batch(8)
    assert test.labels is not None
    sampler = MaskSampler(network.eval(), process, Sampling(steps=5))
    masks = sampler(test.images, torch.Generator().manual_seed(1))[-1].argmax(1)
    assert float((masks == test.labels).float().mean()) > 0.97


# ----------------------------------------------------------------------------------------------------- runs


def arguments(films: Path, out: Path, cache: Path, **changes: object) -> dict[str, object]:
    return {
        "data": films,
        "out": out,
        "method": "joint",
        "network": TINY,
        "joint": {"process": {"num_train_timesteps": 20}},
        "plan": {"size": (32, 32)},
        "split": {"test": 0.4, "validation": 0.2},
        "training": {"steps": 4, "batch_size": 2, "log_every": 1, "checkpoint_every": 1, "keep_state": True,
                     "validate_every": 4, "warmup_steps": 1},
        "reader": {"cache": str(cache)},
        "machine": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
    } | changes  # fmt: skip


@pytest.mark.parametrize("pooled", [False, True])
def test_a_resumed_run_is_bit_identical(
    pooled: bool,
    films: Path,
    unlabelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from radiffuse.train import loop

    changes: dict[str, object] = {"unlabelled": (str(unlabelled),)} if pooled else {}
    changes["training"] = {
        "steps": 4, "batch_size": 2, "checkpoint_every": 2, "warmup_steps": 1, "keep_state": True,
        "micro_batch": 1, "log_every": 1,
    }  # fmt: skip
    straight = radiffuse.fit(**arguments(films, tmp_path / "a", tmp_path / "c", **changes))
    original = loop.save_checkpoint

    def killed(folder: Path, checkpoint: object) -> None:
        original(folder, checkpoint)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        radiffuse.fit(**arguments(films, tmp_path / "b", tmp_path / "c", **changes))
    monkeypatch.setattr(loop, "save_checkpoint", original)
    resumed = radiffuse.fit(**arguments(films, tmp_path / "b", tmp_path / "c", **changes))
    one, other = (load_file(run.model / "model.safetensors") for run in (straight, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    states = [load_newest(run.state) for run in (straight, resumed)]
    for part in ("network", "optimizer"):
        first, second = (state.tensors[part] for state in states if state is not None)
        assert all(torch.equal(first[name], second[name]) for name in first), part
    logged = straight.log()
    assert any("pool" in line for line in logged) == pooled


def test_a_run_starts_from_a_denoiser_and_starts_others(
    films: Path, pretrained: Path, tmp_path: Path
) -> None:
    given = arguments(films, tmp_path / "joint", tmp_path / "c")
    del given["network"], given["joint"]
    run = radiffuse.fit(**given, from_=pretrained)
    source, trained = load_network(pretrained / "model"), load_network(run.model)
    assert isinstance(trained, JointDenoiser)
    name = "middle.before.conv1.weight"
    change = (trained.unet.state_dict()[name] - source.state_dict()[name]).abs().max()
    assert 0 < float(change) < 0.05  # four small steps away
    process = run.config["settings"]["joint"]["process"]
    assert process["num_train_timesteps"] == trained.timesteps == 1000
    tuned = radiffuse.fit(
        **{**given, "out": tmp_path / "tuned", "method": "finetune"}, from_=run.folder
    )
    ours = load_network(tuned.model).state_dict()[f"unet.{name}"]
    assert float((ours - trained.unet.state_dict()[name]).abs().max()) < 0.05
    masks = radiffuse.predict(runs=run.folder, data=films, out=tmp_path / "masks", samples=2)
    radiffuse.evaluate(masks=tmp_path / "masks", truth=films, out=tmp_path / "scores")
    assert (tmp_path / "scores" / "summary.csv").is_file()
    assert masks is not None
    with pytest.raises(InputError, match="draws masks from noise"):
        radiffuse.export(run=run.folder, out=tmp_path / "program", format="torch-export")


def test_what_does_not_apply_is_refused(films: Path, pretrained: Path, tmp_path: Path) -> None:
    for joint, word in (
        ({"given_image": 0.7, "given_mask": 0.5}, "more than all images"),
        ({"process": {"variance": "learned"}}, 'variance": "learned'),
        ({"process": {"timestep_sampling": "loss-aware"}}, "loss-aware"),
        ({"sampling": {"steps": 2000}}, "1000 timesteps"),
    ):
        with pytest.raises(InputError, match=word):
            radiffuse.fit(**arguments(films, tmp_path / "x", tmp_path / "c", joint=joint))
    given = arguments(
        films, tmp_path / "x", tmp_path / "c", joint={"process": {"prediction_type": "v"}}
    )
    del given["network"]
    with pytest.raises(InputError, match=r'prediction_type": "v".*trained with epsilon'):
        radiffuse.fit(**given, from_=pretrained)
    with pytest.raises(InputError, match="pool"):
        radiffuse.fit(**arguments(films, tmp_path / "x", tmp_path / "c", pool={"weight": 0.1}))
    assert not (tmp_path / "x").exists()


def test_what_is_refused_beside_a_run_names_the_run_and_the_flag(pretrained: Path) -> None:
    unet = resolve_network(Network(**TINY), spatial_dims=2, in_channels=1, out_channels=1)
    plan = Plan(2, ("image",), (), (16, 16))
    start = Start(Run.open(pretrained), UNet(unet), Diffusion(), noised=True, plan=plan)
    given = replace(
        FIT["joint"], from_run="runs/pre", joint=Joint(process=Diffusion(num_train_timesteps=50))
    )
    with pytest.raises(InputError, match="runs/pre was trained with 1000") as refused:
        inherit(given, start)
    assert "--joint.process.num-train-timesteps 50" in str(refused.value)
