"""Parts of ``speed.py``: training steps, their memory, and segmenting a volume."""

from __future__ import annotations

import copy
import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contest import Action, Comparison, Contest, in_a_child, timed
from torch import Tensor, nn

from radiffuse.config import Training, UNetConfig
from radiffuse.data.plan import Plan
from radiffuse.data.scan import Scan
from radiffuse.inference.members import Member, one_pass
from radiffuse.inference.predictor import Predictor
from radiffuse.nets.unet import UNet
from radiffuse.system.heap import Heap
from radiffuse.train.step import new_optimizer

MULTIPLIERS = (1, 2, 3, 4)
WIDTH = {2: 64, 3: 32}
BLOCKS = {2: 2, 3: 1}


def ours(dims: int) -> UNet:
    """Our U-Net with the operations of the others: learned resampling, time added, attention at the lowest level."""
    config = UNetConfig(
        spatial_dims=dims, width=WIDTH[dims], multipliers=MULTIPLIERS, blocks=BLOCKS[dims],
        attention_factors=(8,), head_channels=WIDTH[dims], residual_updown=False,
        scale_shift_norm=False,
    )  # fmt: skip
    network = UNet(config)
    network.initialize(torch.Generator().manual_seed(0))
    return network


def monai(dims: int) -> nn.Module:
    """MONAI's diffusion network of the same widths."""
    from monai.networks.nets import DiffusionModelUNet

    network: nn.Module = DiffusionModelUNet(
        spatial_dims=dims, in_channels=1, out_channels=1, num_res_blocks=BLOCKS[dims],
        channels=[WIDTH[dims] * m for m in MULTIPLIERS],
        attention_levels=(False, False, False, True), num_head_channels=WIDTH[dims],
    )  # fmt: skip
    return network


def diffusers(size: int) -> nn.Module:
    """The 2D network of diffusers of the same widths."""
    from diffusers import UNet2DModel

    network: nn.Module = UNet2DModel(
        sample_size=size, in_channels=1, out_channels=1, layers_per_block=2,
        block_out_channels=tuple(64 * m for m in MULTIPLIERS), attention_head_dim=64,
        down_block_types=("DownBlock2D",) * 3 + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * 3,
    )  # fmt: skip
    return network


def order(x: Any, last: bool) -> Any:
    """A tensor or network in channels-last order, or as it is."""
    if not last:
        return x
    three = x.ndim == 5 if isinstance(x, Tensor) else any(p.ndim == 5 for p in x.parameters())
    return x.to(memory_format=torch.channels_last_3d if three else torch.channels_last)


class Step:
    """A denoising training step: noise in, mean squared error, backward pass, optimizer."""

    def __init__(self, network: nn.Module, x: Tensor, *, last: bool, bfloat16: bool) -> None:
        self.own = isinstance(network, UNet)
        self.network, self.x = order(network, last), order(x, last)
        self.bfloat16 = bfloat16
        self.t = torch.randint(0, 1000, (len(x),), generator=torch.Generator().manual_seed(0))
        # Ours as our loop makes it; the tutorials take torch's as it comes.
        parameters = self.network.parameters()
        training = Training(learning_rate=1e-4)
        self.optimizer = (
            new_optimizer(self.network, training)
            if self.own
            else torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
        )

    def __call__(self) -> None:
        """One step."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            answer = (
                self.network(self.x, timesteps=self.t)
                if type(self.network).__module__.startswith("monai")
                else self.network(self.x, self.t)
            )
        answer = getattr(answer, "sample", answer)
        (answer.float() - self.x).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def training(dims: int, size: int, batch: int, known: Sequence[str]) -> Contest:
    """A training step of ours in float32 and bf16, of the rivals as in tutorials and at their best.

    Which setting is best is tried once; ``known`` names what was found in an earlier process.
    """
    x = torch.randn((batch, 1, *(size,) * dims), generator=torch.Generator().manual_seed(0))
    rivals = {"MONAI": lambda: monai(dims)}
    if dims == 2:
        rivals["diffusers"] = lambda: diffusers(size)
    steps = {
        f"ours, {name}": Step(ours(dims), x, last=True, bfloat16=bf)
        for name, bf in (("float32", False), ("bf16", True))
    }
    best = {}
    for rival, build in rivals.items():
        network, seconds = build(), {}
        for name, last, bf in (
            ("float32", False, False),
            ("float32 channels-last", True, False),
            ("bf16", False, True),
            ("bf16 channels-last", True, True),
        ):
            if (bf and size > 64) or (known and f"{rival}, {name}" not in known):
                continue  # bf16 was settled at 64 px
            step = Step(copy.deepcopy(network), x, last=last, bfloat16=bf)
            steps[f"{rival}, {name}"] = step
            if known:
                seconds[name] = 1.0 if name == "float32" else 0.0
                continue
            step()
            seconds[name] = timed(step)["seconds"]
            print(rival, name, round(seconds[name], 3), flush=True)
        best[rival] = min(seconds, key=lambda n: seconds[n])
        for name in seconds:
            if name not in ("float32", best[rival]):
                steps.pop(f"{rival}, {name}")

    def rows() -> list[Comparison]:
        where = f"training step, {' x '.join([str(size)] * dims)}, batch {batch}"
        return [
            Comparison(f"{where}, {kind}", side, f"{rival}, {setting}", target=target)
            for side in ("ours, float32", "ours, bf16")
            for rival in rivals
            for kind, setting, target in (
                ("as in tutorials", "float32", 2.5),
                ("best eager", best[rival], 1.5),
            )
        ]

    return Contest({n: (lambda s=s: timed(s)) for n, s in steps.items()}, rows)  # type: ignore[misc]


def memory(known: Sequence[str] = ()) -> Contest:
    """Peak memory of a 3D training step, weights and optimizer included, and its time."""
    importlib.import_module("monai.networks.nets")  # before the fork

    x = torch.randn((1, 1, 48, 48, 48), generator=torch.Generator().manual_seed(0))

    def side(build: Callable[[], nn.Module], last: bool, bf: bool) -> Action:
        def work() -> Mapping[str, float]:
            before = _status("VmRSS")
            step = Step(build(), x, last=last, bfloat16=bf)
            for parameter in step.network.parameters():
                parameter.grad = torch.zeros_like(parameter)
            step.optimizer.step()  # so that Adam's moments are there
            step.optimizer.zero_grad(set_to_none=True)
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
            seconds = timed(step)["seconds"]
            return {"seconds": seconds, "mib": _status("VmHWM") - before}

        return lambda: in_a_child(work)

    actions = {
        "ours, float32": side(lambda: ours(3), True, False),
        "ours, bf16": side(lambda: ours(3), True, True),
        "MONAI, float32": side(lambda: monai(3), False, False),
    }

    def rows() -> list[Comparison]:
        return [
            Comparison(
                f"3D training step, 48 x 48 x 48, {what}",
                name,
                "MONAI, float32",
                measure,
                unit,
                target,
            )
            for name in ("ours, float32", "ours, bf16")
            for what, measure, unit, target in (
                ("peak memory", "mib", "MiB", 0.6),
                ("first step of the same process", "seconds", "s", 1.0),
            )
        ]

    return Contest(actions, rows, note="each turn in a fork of its own", warm=False)


def sliding(known: Sequence[str] = ()) -> Contest:
    """A volume to its mask: windows of 48 voxels, overlap 0.5, Gaussian weights, eight classes, float32."""
    from monai.inferers import sliding_window_inference

    classes = tuple(f"class-{i}" for i in range(8))
    config = UNetConfig(
        spatial_dims=3, out_channels=len(classes), width=16, multipliers=(1, 2, 4), blocks=1,
        attention_factors=(), head_channels=16,
    )  # fmt: skip
    network = UNet(config).eval()
    network.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        nn.init.normal_(network.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    network = _Segmenter(network)
    last = order(copy.deepcopy(network), True)
    size, shape = (48, 48, 48), (48, 72, 72)
    volume = torch.rand((1, *shape), generator=torch.Generator().manual_seed(2)) * 2 - 1
    scan = Scan(volume.numpy(), spacing=(1.0, 1.0, 1.0))
    plan = Plan(
        3, ("image",), classes, size, (1.0, 1.0, 1.0), intensity="window", low=-1.0, high=1.0
    )
    predictor = Predictor(
        [Member("own", one_pass(last), plan)], torch.device("cpu"),
        lambda: torch.autocast("cpu", enabled=False),
    )  # fmt: skip

    def mine() -> Tensor:
        return torch.from_numpy(predictor(scan).mask)

    @torch.no_grad()
    def theirs(net: nn.Module, batch: int) -> Tensor:
        logits = sliding_window_inference(
            volume[None], size, batch, net, overlap=0.5, mode="gaussian"
        )
        return logits[0].argmax(0).to(torch.uint8)

    settings = {
        "MONAI, one window at a time": lambda: theirs(network, 1),
        "MONAI, channels-last network": lambda: theirs(last, 1),
    }
    agree = float((mine() == theirs(network, 1)).float().mean())

    def side(work: Callable[[], Tensor]) -> Action:
        return lambda: in_a_child(lambda: _watched(work))

    actions = {"ours": side(mine)} | {name: side(work) for name, work in settings.items()}

    def rows() -> list[Comparison]:
        where = "volume of 48 x 72 x 72 to mask, 48 voxel windows"
        return [
            Comparison(f"{where}, {what}", "ours", rival, measure, unit, target)
            for rival in settings
            for what, measure, unit, target in (
                ("time", "seconds", "s", 1.3),
                ("memory", "mib", "MiB", 0.7),
            )
        ]

    note = f"memory is the rise of resident memory; masks agree in {agree:.4%} of voxels"
    return Contest(actions, rows, note=note, warm=False)


class _Segmenter(nn.Module):
    """The U-Net at timestep 0, so that both sides call it with an image alone."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor) -> Tensor:
        return self.unet(x, torch.zeros(len(x)))


def heap(dims: int, size: int, batch: int, known: Sequence[str] = ()) -> Contest:
    """A training step while freed memory is kept, and while the kernel gets it back, each in a process of its own."""
    x = torch.randn((batch, 1, *(size,) * dims), generator=torch.Generator().manual_seed(0))

    def side(device: str) -> Action:
        def work() -> Mapping[str, float]:
            before = _status("VmRSS")
            step = Step(ours(dims), x, last=True, bfloat16=False)
            with Heap(device) as kept:
                step()
                kept.settle()
                step()
                seconds = timed(step)["seconds"]
                return {"seconds": seconds, "mib": _status("VmHWM") - before}

        return lambda: in_a_child(work)

    def rows() -> list[Comparison]:
        what = f"training step, {' x '.join([str(size)] * dims)}, batch {batch}"
        return [
            Comparison(f"{what}, {label}", "freed memory kept", "given back", measure, unit)
            for label, measure, unit in (("time", "seconds", "s"), ("memory", "mib", "MiB"))
        ]

    return Contest({"freed memory kept": side("cpu"), "given back": side("none")}, rows, warm=False)


def _status(name: str) -> float:
    """A line of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def _watched(work: Callable[[], object]) -> Mapping[str, float]:
    Path("/proc/self/clear_refs").write_text("5")
    before, began = _status("VmRSS"), time.process_time()
    work()
    return {"seconds": time.process_time() - began, "mib": _status("VmHWM") - before}


PARTS: dict[str, Callable[[Sequence[str]], Contest]] = {
    "train2d-64": partial(training, 2, 64, 2),
    "train2d-128": partial(training, 2, 128, 1),
    "train3d": partial(training, 3, 48, 1),
    "memory3d": memory,
    "heap2d": partial(heap, 2, 128, 4),
    "heap3d": partial(heap, 3, 64, 1),
    "sliding3d": sliding,
}
