"""What a small DINO encoder learns: both branches give a film's views the same answer (Caron et al. 2021).

The teacher, whose weights are the average of the student's, sees the two large views; the student sees all; each pair
of different views is a term of the loss. Centering and a low temperature keep the teacher from one answer for all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DinoSettings
from ..data.batches import Batch
from ..system.distributed import gather
from ..train.random import StepRandom
from ..train.task import Loss
from .encoder import DinoNetwork, trained_encoder
from .views import Views


class DinoLearning:
    """The task: tell of each view what the teacher tells of another one.

    Args:
        settings: Sizes, temperatures and momenta.
        size: Pixels of a large crop along each axis.
        channels: Channels of the images.
        held_out: Views of films never trained on, or None.
    """

    name = "dino"

    def __init__(
        self, settings: DinoSettings, size: int, channels: int, held_out: Views | None = None
    ) -> None:
        self.settings = settings
        self.size = size
        self.channels = channels
        self.held_out = held_out
        self.whole_batch = settings.spread > 0  # how crowded a batch is

    def build(self) -> nn.Module:
        """Student and teacher at their start, equal."""
        return DinoNetwork(self.settings, self.size, self.channels)

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Cross-entropy of the student's answers from the teacher's, over pairs of different views."""
        assert isinstance(batch, Views)
        student, teacher, tokens = network(batch.images, batch.small, random.total)
        target = (teacher / self.settings.teacher_temperature).softmax(-1)
        answer = (student / self.settings.temperature).log_softmax(-1)
        terms = [
            -(target[:, i] * answer[:, j]).sum(-1)
            for i in range(target.shape[1])
            for j in range(answer.shape[1])
            if i != j
        ]
        entropy = -(target * target.clamp(min=1e-12).log()).sum(-1).mean()
        mean = target.mean((0, 1))
        spread = -(mean * mean.clamp(min=1e-12).log()).sum()
        crowding = koleo(tokens)
        # The teacher's entropy at log K, or that of its mean at 0, is the collapse that centering prevents.
        values = {
            "loss_crowding": float(crowding.detach()),
            "teacher_entropy": float(entropy),
            "mean_entropy": float(spread),
        }
        return Loss(torch.stack(terms).mean() + self.settings.spread * crowding, values)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Share of unseen films whose one large view finds the other among all; and how alike all embeddings are."""
        if self.held_out is None or len(self.held_out) < 2:
            return {}
        assert isinstance(network, DinoNetwork)
        encoder = trained_encoder(network)
        views = self.held_out.images.to(device)
        one, other = encoder(views[:, 0]), encoder(views[:, 1])
        found = (one @ other.T).argmax(1) == torch.arange(len(one), device=device)
        alike = F.normalize(one.mean(0), dim=0) @ one.T
        return {"retrieval": float(found.float().mean()), "similarity": float(alike.mean())}

    def state_dict(self) -> dict[str, Tensor]:
        """The task learns nothing beside its network."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""


def koleo(tokens: Tensor) -> Tensor:
    """How crowded the directions of tokens are: minus the mean log distance to the nearest other film of the batch.

    The regularizer of DINOv2 (Sablayrolles et al. 2019), each view on its own.

    Args:
        tokens: ``(B, V, W)``, of which all ranks' are compared; where there is no other film the loss is 0.
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
