"""What fidelity and memorization share: two sets of images, their features, and what speaks against comparing them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Data, Machine
from ..data.dataset import Dataset
from ..data.prepared import Prepared
from ..data.provenance import Origin, generation_settings, read_origins
from ..errors import InputError, RunError
from ..train.run import WEIGHTS, Run
from ..train.start import find_pretrained
from .embedder import FeatureNetwork, contents, features_of, network_of_run, network_of_transformers


@dataclass(frozen=True)
class Embedded:
    """A set of images and its features.

    Attributes:
        dataset: The cases.
        prepared: The usable ones, as the network sees them.
        features: ``(N, width)``, in the order of ``prepared.cases``.
    """

    dataset: Dataset
    prepared: Prepared
    features: NDArray[np.float64]

    @property
    def groups(self) -> list[str]:
        """Patient of each row."""
        return [case.group for case in self.prepared.cases]

    @property
    def names(self) -> list[str]:
        """Case of each row."""
        return [case.name for case in self.prepared.cases]


def open_network(name: str, real: Dataset) -> FeatureNetwork:
    """A feature network by the name of shipped weights, folder of a run, folder or public name of a DINO.

    Raises:
        InputError: There is none under that name.
    """
    path = Path(name).expanduser()
    if (path / "config.yaml").is_file() or ("/" not in name and (WEIGHTS / name).is_dir()):
        return network_of_run(find_pretrained(name), name)
    return network_of_transformers(name, real)


def embedded(
    network: FeatureNetwork, dataset: Dataset, reader: Data, machine: Machine, least: int
) -> Embedded:
    """A data set with its features.

    Raises:
        InputError: It has fewer than ``least`` usable images.
    """
    _verify_number(dataset.root, len(dataset), least)
    found = Embedded(dataset, *features_of(network, dataset, reader, machine))
    _verify_number(dataset.root, len(found.features), least)
    return found


def _verify_number(root: Path, images: int, least: int) -> None:
    if images < least:
        problem = f"holds {images} usable images"
        raise InputError(root, problem, f"Give {least} or more; thousands are usual")


def origins_of(fake: Embedded) -> list[Origin]:
    """Origin of every synthetic image, in the order of the rows."""
    found = read_origins(fake.dataset)
    return [found[name] for name in fake.names]


def shared_images(real: Embedded, fake: Embedded) -> int:
    """How many synthetic images are, as the network sees them, an image of the real set."""
    known = set(contents(real.prepared))
    return sum(content in known for content in contents(fake.prepared))


def generator_of(fake: Dataset) -> tuple[Mapping[str, Any], Run | None]:
    """The settings of the generation, and the run that drew the images, where both can be found."""
    settings = generation_settings(fake)
    run = settings.get("run")
    try:
        return settings, Run.open(str(run)) if run and Path(str(run)).is_dir() else None
    except RunError:
        return settings, None


def same_path(one: object, other: Path) -> bool:
    """Whether two paths lead to one place."""
    return bool(one) and os.path.realpath(str(one)) == os.path.realpath(other)


def trained_on(real: Embedded, fake: Dataset) -> int:
    """How many images of the real set the generator is known to have learned from."""
    _, run = generator_of(fake)
    if run is None or not same_path(run.data.get("root"), real.dataset.root):
        return 0
    data = run.data
    seen = set(real.names) - set(data.get("split", {}).get("validation", ()))
    seen -= {skipped["case"] for skipped in data.get("skipped", ())}
    return len(seen)
