"""[ours] Synthetic films worth training on: likely of their class to a classifier of real ones, and no copies."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..data.batches import ClassifiedFilm
from ..data.plan import Plan
from ..errors import InputError
from ..nets.classifier import Classifier
from ..nets.registry import load_network
from ..objectives.classification import class_probabilities_and_features
from ..train.run import Run
from .copies import Ruler, threshold_of


@dataclass(frozen=True)
class FilmJudge:
    """A classifier of real films that chooses among synthetic ones.

    Attributes:
        network: The classifier.
        real: The real films to train on, of two patients at least.
        device: Where it computes.
    """

    network: Classifier
    real: Sequence[ClassifiedFilm]
    device: torch.device

    @cached_property
    def _known(self) -> tuple[Ruler, float]:
        """Distances to the real films, and that below which a film is a near copy."""
        patients = [item.prepared.cases[item.row].group for item in self.real]
        real = list(self.real)
        _, features = class_probabilities_and_features(self.network, real, self.device)
        ruler = Ruler(features, patients)
        return ruler, threshold_of(ruler.nearest(features, patients)[0])

    def choose(self, films: Sequence[ClassifiedFilm], share: float) -> list[ClassifiedFilm]:
        """Of films of one class no near copies, and of the rest the ``share``, rounded up, of the most probable.

        Returns:
            The films kept, in their order.

        Raises:
            ValueError: The real films are of a single patient.
        """
        if not films:
            return []
        ruler, threshold = self._known
        found, drawn = class_probabilities_and_features(self.network, list(films), self.device)
        new = np.flatnonzero(ruler.nearest(drawn)[0] >= threshold)
        probability = found[np.arange(len(films)), [item.target for item in films]]
        best = new[np.argsort(-probability[new], kind="stable")]
        return [films[i] for i in sorted(best[: math.ceil(share * len(new))])]


def open_film_judge(
    folder: str,
    plan: Plan,
    classes: Sequence[str],
    held: Collection[str],
) -> Classifier:
    """The network of a judge, a run of radiffuse classify.

    Args:
        folder: Of the run.
        plan: By which all films were prepared.
        classes: Of the films.
        held: Names of the cases for validation and test, none of which the judge may have been trained on.

    Raises:
        InputError: It is no finished classifier of these classes and this plan, or was trained on what is held out.
    """
    run = Run.open(Path(folder))
    where = f"--judge {folder}"
    if run.config.get("command") != "classify" or not run.finished:
        raise InputError(where, "is no finished classifier", "Give a run of radiffuse classify")
    network = load_network(run.model)
    assert isinstance(network, Classifier)
    remedy = "Give a classifier of the same films"
    if (known := tuple(network.classes)) != tuple(classes):
        problem = f"tells {', '.join(known)} apart, and these films are of {', '.join(classes)}"
        raise InputError(where, problem, remedy)
    mine, theirs = plan.treatment, run.plan.treatment
    if other := [name for name in mine if mine[name] != theirs[name]]:
        problem = f"has {other[0]} {theirs[other[0]]} in its plan, and these films {mine[other[0]]}"
        raise InputError(where, problem, remedy)
    if seen := sorted(set(held).intersection(run.data["split"]["train"])):
        problem = f"was trained on {len(seen)} of the films held out here, such as {seen[0]}"
        raise InputError(where, problem, "Give one that was trained with the same split")
    return network
