"""Training a small DINO encoder on the user's images: student and teacher give a film's views the same output.

Caron et al. 2021, arXiv 2104.14294. The teacher, whose weights are the average of the student's, sees the two large
views; the student sees all; each pair of different views is a term of the loss. Centering and a low temperature keep
the teacher from one output for all. The backbone is ``Dinov2Model`` of transformers, so the encoder is saved as a
folder that transformers loads.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DinoSettings
from ..data.batches import Batch
from ..errors import InputError
from ..nets.encoder import Encoder
from ..nets.hub import hush
from ..system.distributed import gather, world_size
from ..train.random import StepRandom
from ..train.task import Loss, Task
from .views import Views

HEAD_WIDTH = 64
"""Channels of an attention head."""
HIDDEN, BOTTLENECK = 512, 128
"""Widths of the head; [related] 2048 and 256."""


class DinoLearning(Task):
    """The task: the student's output for a view is to match the teacher's for another view of the same film.

    A large crop has ``size`` pixels along each axis; ``held_out`` are views of films for validation, or None.
    """

    decays_vectors = False

    def __init__(
        self, settings: DinoSettings, size: int, channels: int, held_out: Views | None = None
    ) -> None:
        super().__init__(lambda: DinoNetwork(settings, size, channels))
        self.settings, self.held_out = settings, held_out
        self.whole_batch = settings.spread > 0  # crowding is a matter of the batch as a whole
        self.steps_held = round(settings.last_layer_held * settings.training.length)

    def held(self, network: nn.Module, step: int) -> tuple[nn.Parameter, ...]:
        """The last layer, in the first ``last_layer_held`` of the steps (Caron et al. 2021)."""
        assert isinstance(network, DinoNetwork)
        return (network.student.prototypes,) if step < self.steps_held else ()

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Cross-entropy of the student's outputs from the teacher's, over pairs of different views."""
        assert isinstance(batch, Views)
        student, teacher, tokens = network(batch.images, batch.small, random.total)
        target = (teacher / teacher_temperature(random.step, self.settings)).softmax(-1)
        log_student = (student / self.settings.temperature).log_softmax(-1)
        terms = [
            -(target[:, i] * log_student[:, j]).sum(-1)
            for i in range(target.shape[1])
            for j in range(log_student.shape[1])
            if i != j
        ]
        entropy = -(target * target.clamp(min=1e-12).log()).sum(-1).mean()
        mean = target.mean((0, 1))
        mean_entropy = -(mean * mean.clamp(min=1e-12).log()).sum()
        crowding = koleo(tokens)
        # The teacher's entropy at log K, or that of its mean at 0, is the collapse that centering prevents.
        values = {
            "loss_crowding": float(crowding.detach()),
            "teacher_entropy": float(entropy),
            "mean_entropy": float(mean_entropy),
        }
        return Loss(torch.stack(terms).mean() + self.settings.spread * crowding, values)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Fraction of held-out films whose one large view finds the other; and how alike all embeddings are."""
        if self.held_out is None or len(self.held_out) < 2:
            return {}
        assert isinstance(network, DinoNetwork)
        encoder = trained_encoder(network)
        views = self.held_out.images.to(device)
        one, other = encoder(views[:, 0]), encoder(views[:, 1])
        matched = (one @ other.T).argmax(1) == torch.arange(len(one), device=device)
        alike = F.normalize(one.mean(0), dim=0) @ one.T
        return {"retrieval": float(matched.float().mean()), "similarity": float(alike.mean())}


class DinoNetwork(nn.Module):
    """Student and averaged teacher, each a backbone with a head.

    The teacher's weights, and the center that is subtracted from its outputs, move at the beginning of the step after
    the one they have seen. So both are part of every checkpoint, and micro-batches and processes change neither.
    """

    center: Tensor
    square: Tensor
    pending: Tensor
    seen: Tensor
    step: Tensor

    def __init__(self, settings: DinoSettings, size: int, channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.student = _Branch(settings, size, channels)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("center", torch.zeros(settings.prototypes))
        self.register_buffer("square", torch.full((settings.prototypes,), 1 / BOTTLENECK))
        self.register_buffer("pending", torch.zeros(2, settings.prototypes))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, large: Tensor, small: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of both branches, and the student's tokens.

        Args:
            large: ``(B, 2, C, S, S)``.
            small: ``(B, L, C, S / 2, S / 2)``; L may be 0.
            total: Images of the step over all passes and ranks.

        Returns:
            Student ``(B, 2 + L, K)``, the large crops first; teacher ``(B, 2, K)``, centered; and the student's global
            tokens of the large crops, ``(B, 2, W)``.
        """
        if int(self.seen) >= total:
            self._follow()
        student, tokens = self.student(large)
        if small.shape[1]:
            student = torch.cat([student, self.student(small)[0]], dim=1)
        with torch.no_grad():
            teacher = self.teacher(large)[0]
            self.pending += torch.stack([teacher.mean(1).sum(0), teacher.square().mean(1).sum(0)])
            self.seen += len(large)
            if (world := world_size()) > 1 and int(self.seen) * world >= total:
                self.pending.copy_(gather(self.pending[None]).sum(0))
                self.seen.mul_(world)
            # Temperatures are in units of the standard deviation of a cosine to a random direction. Dividing by the one
            # seen here turns even the outputs of an untrained teacher, which hardly differ, into a target.
            std = (self.square - self.center.square()).clamp(min=1e-12).sqrt()
            teacher = (teacher - self.center) / std / BOTTLENECK**0.5
        return student, teacher, tokens

    def forget_step(self) -> None:
        """Forget what the current step has seen, so that it can be repeated; ``_follow`` is not undone."""
        self.pending.zero_()
        self.seen.zero_()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move teacher and center to what the last step has seen (Caron et al. 2021, algorithm 1)."""
        progress = min(1.0, int(self.step) / max(1, self.settings.training.length))
        momentum = 1 - (1 - self.settings.momentum) * (1 + math.cos(math.pi * progress)) / 2
        torch._foreach_lerp_(
            list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum
        )
        mean, square = self.pending / int(self.seen)
        self.center.lerp_(mean, 1 - self.settings.center_momentum)
        self.square.lerp_(square, 1 - self.settings.center_momentum)
        self.pending.zero_()
        self.seen.zero_()
        self.step += 1


class _Branch(nn.Module):
    def __init__(self, settings: DinoSettings, size: int, channels: int) -> None:
        from transformers import Dinov2Config, Dinov2Model

        super().__init__()
        hush()
        if settings.width % HEAD_WIDTH:
            where = f"--dino.width {settings.width}"
            raise InputError(where, f"is no multiple of {HEAD_WIDTH}", "Use one")
        if (size // 2) % settings.patch:
            problem = f"does not divide half the size, {size // 2}"
            remedy = "Choose a patch that does, such as 4 or 8"
            raise InputError(f"--dino.patch {settings.patch}", problem, remedy)
        self.backbone = Dinov2Model(
            Dinov2Config(
                hidden_size=settings.width,
                num_hidden_layers=settings.depth,
                num_attention_heads=settings.width // HEAD_WIDTH,
                image_size=size,
                patch_size=settings.patch,
                num_channels=channels,
                # The usual 0.02 fits a width of 768 and more; a narrow network would start with tokens that hardly
                # depend on the image, and attention that does not distinguish places. [ours]
                initializer_range=settings.width**-0.5,
            )
        )
        # Of masked image modelling, which DINO does not do; unused weights would stop a distributed run.
        self.backbone.embeddings.mask_token.requires_grad_(False)
        self.head = nn.Sequential(
            nn.Linear(settings.width, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, BOTTLENECK),
        )
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.randn(settings.prototypes, BOTTLENECK))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, V, C, S, S)`` to logits ``(B, V, K)`` and global tokens ``(B, V, W)``."""
        flat = crops.flatten(0, 1)
        token = self.backbone(pixel_values=flat).last_hidden_state[:, 0]
        direction = F.normalize(self.head(token), dim=1, eps=1e-6)
        logits = direction @ F.normalize(self.prototypes, dim=1).T
        views = crops.shape[:2]
        return logits.float().unflatten(0, views), token.float().unflatten(0, views)


def teacher_temperature(step: int, settings: DinoSettings) -> float:
    """The teacher's temperature in one step, counted from 0: a linear warm-up, then constant.

    Caron et al. 2021, section 3.2. From ``start_teacher_temperature`` at step 0 to ``teacher_temperature`` when the
    share ``teacher_warmup`` of the steps is over.
    """
    start, final = settings.start_teacher_temperature, settings.teacher_temperature
    warmup = round(settings.teacher_warmup * settings.training.length)
    return start + (final - start) * step / warmup if step < warmup else final


def trained_encoder(network: DinoNetwork) -> Encoder:
    """The teacher's backbone, whose images in [-1, 1] need no other normalization."""
    config = network.teacher.backbone.config
    half = (0.5,) * int(config.num_channels)
    return Encoder(network.teacher.backbone, int(config.image_size), half, half)


def koleo(tokens: Tensor) -> Tensor:
    """Crowding of the tokens ``(B, V, W)`` of all ranks: minus the mean log distance to the nearest other film.

    The regularizer of DINOv2 (Sablayrolles et al. 2019), each view on its own; 0 where there is no other film.
    """
    tokens = gather(tokens)
    if len(tokens) < 2:
        return tokens.sum() * 0
    unit = F.normalize(tokens, dim=-1).transpose(0, 1)
    with torch.no_grad():
        likeness = unit @ unit.transpose(1, 2)
        nearest = likeness.diagonal_scatter(
            torch.full(likeness.shape[:2], -2.0, device=likeness.device), dim1=1, dim2=2
        ).argmax(2)
    other = torch.gather(unit, 1, nearest[..., None].expand_as(unit))
    crowding: Tensor = -((unit - other).norm(dim=-1) + 1e-8).log().mean()
    return crowding
