"""What the planner is asked, the configurations that it tries, and what it decides."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...config import Machine, Network, PlanSettings, Training, TrainingPlan, UNetConfig
from ...data.ceiling import TARGET, Grid
from ...data.scan import times
from ...nets.summary import NetworkSummary, summarize
from ..progress import duration
from .capacities import Capacity
from .machine import MachineFacts

DEFAULT_HOURS = {"fit": 1.0, "pretrain": 3.0}
"""The longest training where no hours are given [ours]."""
PASSES = {"fit": 40, "pretrain": 60}
"""How often every image is seen in full, where no hours are given [ours]."""
AT_WORK = 0.9
"""Share of the time that goes into steps; the rest is preparation, validation and checkpoints."""
BUSY = 1.1
"""Steps that take more times as long as alone are worth a word [ours]."""
FINER = 2
"""Films that are seen whole: by how much a grid may be finer than suffices for a perfect network, and how many times as
many images are then needed, unless most of them are seen at half the resolution [ours]. A real network draws borders to
a part of a pixel of its grid: at equal steps and five labels, lungs at 256 px have more surface Dice than at 128 px
(``results/lungs-fine-dev.csv``)."""
COARSE = 0.75
"""Share of the steps at half the resolution, with a quarter of the pixels, where a grid is finer than suffices [ours;
related: multigrid training, Wu et al. 2020, arXiv 1912.00998]."""
BASE = {"cpu": 550_000_000, "cuda": 600_000_000, "mps": 600_000_000}
"""Bytes that the process, or the context of a GPU, takes in any case [measured on a CPU]."""


@dataclass(frozen=True)
class Request:
    """What is to be trained, and what is given.

    Attributes:
        kind: ``"fit"`` or ``"pretrain"``.
        images: Cases to train on.
        classes: Outputs of a segmenter; 0 in pre-training.
        plan: The given size, grid and spacing.
        training: The given steps and batch.
        machine: The given precision, checkpointing and compilation.
        network: The given network; None where it is open.
        own: Whether the method has a network of its own, whose size that of the U-Nets only stands for.
        start: The network to start from, which stays as it is.
        hours: The given time.
        passed: Tells how many seconds of it are over.
        halves: Whether the first steps may see images at half the resolution.
        more: How many times the images of ``Capacity.samples`` are needed: pre-training needs more than segmentation.
        target: Dice and surface Dice that the grid should allow.
    """

    kind: str
    images: int
    classes: int = 0
    plan: PlanSettings = field(default_factory=PlanSettings)
    training: Training = field(default_factory=Training)
    machine: Machine = field(default_factory=Machine)
    network: Network | None = None
    own: bool = False
    start: UNetConfig | None = None
    hours: float | None = None
    passed: Callable[[], float] = lambda: 0.0
    halves: bool = False
    more: float = 1.0
    target: tuple[float, float] = TARGET

    @property
    def budget(self) -> float:
        """Seconds of training at most."""
        if self.hours is None:
            return 3600 * AT_WORK * DEFAULT_HOURS[self.kind]
        return AT_WORK * (3600 * self.hours - self.passed())


@dataclass(frozen=True)
class Configuration:
    """A grid, a patch and a network on it.

    Attributes:
        grid: 2D: rows and columns; 3D: spacing.
        size: The patch.
        whole: The median film or body on the grid, in voxels.
        network: Its settings; None where it is given.
        unet: The network.
        batch: Images per step, ``micro`` of them at once.
        checkpointed: Whether activations are recomputed.
        capacity: The family of the network; of one that is given, the smallest.
        finer: Whether a coarser grid suffices, see ``FINER``.
        coarse: Share of the steps at half the resolution.
    """

    grid: Grid
    size: tuple[int, ...]
    whole: tuple[float, ...]
    network: Network | None
    unet: UNetConfig
    batch: int
    micro: int
    checkpointed: bool
    capacity: Capacity
    finer: bool = False
    coarse: float = 0.0

    @property
    def paid(self) -> float:
        """Time of the steps, those at half the resolution too, as a share of as many at the full one."""
        return 1 - self.coarse * (1 - 2.0 ** -len(self.size))

    @property
    def placed(self) -> dict[str, Any]:
        """Size, grid and spacing of the plan, by name."""
        two, film = len(self.size) == 2, tuple(int(n) for n in self.grid)
        return {
            "size": self.size,
            "grid": film if two and film != self.size else None,
            "spacing": None if two else self.grid,
        }

    @property
    def operations(self) -> float:
        """Floating point operations of a step."""
        passes = 4.0 if self.checkpointed else 3.0
        return passes * _cost(self.unet, self.size).forward_flops * self.batch

    def memory(self, facts: MachineFacts, precision: str) -> int:
        """Bytes that a training step takes: of a GPU, or of a process, with its part of the batch."""
        own = math.ceil(self.batch / facts.processes)
        cost = _cost(self.unet, self.size, min(self.micro, own), facts.device)
        mixed = precision == "bf16-mixed"
        step = cost.training_bytes(bfloat16=mixed, checkpointed=self.checkpointed)
        return BASE[facts.device] + step

    @property
    def words(self) -> str:
        """What goes through the network at once, for messages."""
        more = [f"width {self.unet.width}"] * (self.network is not None)
        more += ["activations recomputed"] * self.checkpointed
        images = f"{self.micro} image{'s' * (self.micro > 1)} of {times(self.size)}"
        return f"{images} ({', '.join(more)})" if more else images

    @property
    def samples(self) -> float:
        """Fewer images or patches are not worth training it on; more where each shows a part of a film [ours].

        With 16 patches of 192 pixels to a bitewing of 768, five labels and 8 minutes of a core, caries was not learned
        at all; with 9 of 128 to 384 it was, and better than on whole images of 128 (``results/bitewings-native.csv``).
        """
        parts = math.sqrt(self.patches) if len(self.size) == 2 else 1
        # Of steps at half the resolution as many are needed as where it suffices.
        more = min(FINER, 1 / self.coarse) if self.coarse else FINER
        return self.capacity.samples * parts * (more if self.finer else 1)

    @property
    def patches(self) -> int:
        """How many patches show an image in full."""
        pairs = zip(self.whole, self.size, strict=True)
        return math.prod(math.ceil(n / p - 0.05) for n, p in pairs)


@functools.lru_cache(maxsize=4096)
def _cost(
    unet: UNetConfig, size: tuple[int, ...], images: int = 1, device: str = "cuda"
) -> NetworkSummary:
    return summarize(unet, size, images, "cpu" if device == "cpu" else "cuda")


@dataclass(frozen=True)
class Measured:
    """What a few real steps took.

    Attributes:
        seconds: Of a step, as if nothing else ran on the cores.
        slowed: How many times as long they took because other work did.
    """

    seconds: float
    slowed: float = 1.0

    @property
    def busy(self) -> bool:
        """Whether other work was in the way."""
        return self.slowed > BUSY


@dataclass(frozen=True)
class Configured:
    """The plan of a training.

    Attributes:
        plan: Size, grid and spacing.
        training: What is decided about the training.
        reasons: Why, by what was decided.
    """

    plan: PlanSettings
    training: TrainingPlan
    reasons: dict[str, str]


def samples_of(request: Request, config: Configuration, seconds: float) -> tuple[float, str]:
    """Images or patches to train on, and why; a step at full resolution takes so many seconds."""
    affordable = request.budget / (seconds * config.paid) * config.batch
    if request.hours is not None:
        over = f", of which {duration(passed)} were over" if (passed := request.passed()) else ""
        return affordable, f"as many as {request.hours:g} h allow{over}"
    passes = PASSES[request.kind] * request.images * config.patches
    wanted = max(config.samples * request.more, passes)
    if affordable < wanted:
        return affordable, f"as many as {DEFAULT_HOURS[request.kind]:g} h allow; more with --hours"
    if passes >= wanted:
        return wanted, f"{PASSES[request.kind]} passes over {request.images} images"
    return wanted, f"{wanted:,.0f} images or patches at least, for a network of this size"
