"""Classification of whole films."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ..data.batches import Batch, ClassifiedFilm
from ..evaluation.classification import auroc_by_class
from ..inference.finite import verify_finite
from ..nets.classifier import Classifier
from ..train.random import StepRandom
from ..train.task import Loss, Task

PREDICTION_BATCH = 64


class Classification(Task):
    """The task: cross-entropy of the class.

    Args:
        network: The classifier at its start.
        held_out: Films for validation, never trained on.
    """

    def __init__(self, network: nn.Module, held_out: list[ClassifiedFilm]) -> None:
        super().__init__(network)
        self.held_out = held_out

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Mean cross-entropy."""
        assert batch.labels is not None
        return Loss(F.cross_entropy(network(batch.images).float(), batch.labels))

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean AUROC over the classes; empty where a class is missing among the held-out films."""
        if not self.held_out:
            return {}
        truth = np.array([item.target for item in self.held_out])
        probabilities = class_probabilities(network, self.held_out, device)
        area = float(auroc_by_class(probabilities, truth)[0, -1])
        return {} if np.isnan(area) else {"auroc": area}


def class_probabilities(
    network: nn.Module, items: list[ClassifiedFilm], device: torch.device
) -> NDArray[np.float64]:
    """Probability of each class, ``(n, K)``. Arguments and errors as of ``class_probabilities_and_features``."""
    return class_probabilities_and_features(network, items, device)[0]


@torch.no_grad()
def class_probabilities_and_features(
    network: nn.Module, items: list[ClassifiedFilm], device: torch.device
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability of each class, ``(n, K)``, and the features of the last layer, ``(n, F)``.

    The network stays on the device, in evaluation mode.

    Args:
        network: A ``Classifier``.
        items: The films, one at least.
        device: Where to compute.

    Raises:
        InputError: A logit is not finite.
    """
    assert isinstance(network, Classifier)
    network.to(device).eval()
    probabilities, features = [], []
    for start in range(0, len(items), PREDICTION_BATCH):
        part = items[start : start + PREDICTION_BATCH]
        films = np.stack([np.asarray(item.prepared.image(item.row), np.float32) for item in part])
        names = ", ".join(item.prepared.cases[item.row].name for item in part[:4])
        logits, inner = network.forward_with_features(torch.from_numpy(films).to(device))
        verify_finite(logits.float(), names, "the classifier")
        probabilities.append(logits.float().softmax(1).double().cpu().numpy())
        features.append(inner.double().cpu().numpy())
    return np.concatenate(probabilities), np.concatenate(features)
