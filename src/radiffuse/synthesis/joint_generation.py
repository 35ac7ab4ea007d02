"""Drawn images with their masks, of a joint denoiser, as a data set of labelled pairs."""

from __future__ import annotations

import csv
import io
from functools import cached_property
from pathlib import Path

from ..config import Generate
from ..data.provenance import ANCESTORS, Ancestors, name_of_ancestors
from ..data.readers import write_label
from ..data.scan import Array
from ..errors import InputError, damaged
from ..inference.pairs import pair_batches
from ..nets.joint_denoiser import JointDenoiser
from ..nets.registry import load_network
from ..system.files import make_folder, write_atomic, write_json
from ..train.edited import other_classes, verify_channels, verify_edited
from ..train.known import patients_seen
from ..train.members import kind_of
from ..train.run import Run
from .denoiser_generation import DenoiserGeneration
from .generation import Provenance

IMAGES, LABELS = "images", "labels"
STRATEGY = "joint"


def is_joint(run: Run) -> bool:
    """Whether a finished run has a denoiser of image and mask."""
    return kind_of(run) == "joint-denoiser"


class JointGeneration(DenoiserGeneration):
    """Generation from a run of radiffuse fit --method joint, of films or volumes: ``images/`` and ``labels/``.

    Every pair descends from all patients whose labels or, in a pool, images were learned from: so whoever reads it
    beside data of which one of them is held out leaves it out.

    Raises:
        InputError: As of ``DenoiserGeneration``, or the images have several channels.
    """

    network: JointDenoiser
    batches = staticmethod(pair_batches)

    def __init__(self, settings: Generate, run: Run) -> None:
        super().__init__(settings, run)
        if "learned_patients" not in run.data:
            problem = "does not say whose labels it learned from, as published runs do not"
            raise InputError(run.folder, problem, "Draw pairs with the run as it was trained")
        if len(self.plan.channels) != 1:
            problem = f"draws {len(self.plan.channels)} channels, and files of one are written"
            raise InputError(run.folder, problem, "Train on images of one channel")

    def load(self, run: Run) -> JointDenoiser:
        """The network that draws, with averaged weights."""
        network = load_network(run.model)
        assert isinstance(network, JointDenoiser)
        verify_edited(run, network)
        verify_channels(run, network.channels)
        if network.classes != len(run.plan.classes):
            raise other_classes(run, network.classes)
        return network

    @cached_property
    def ancestors(self) -> Ancestors:
        """Cases whose labels were learned from, and the patients of these and of the pool."""
        with damaged(self.run.folder / "data.json"):
            cases = sorted(self.run.data["split"]["train"])
            return {"patients": sorted(patients_seen(self.run)), "cases": cases}

    @cached_property
    def shared(self) -> str:
        """The name that stands for the ancestors."""
        return name_of_ancestors(self.ancestors["patients"], self.ancestors["cases"])

    def rows(self) -> list[Provenance]:
        """Where each pair comes from."""
        images = (f"{IMAGES}/pair-{number:05d}{self.suffix}" for number in range(self.count))
        return [
            self.row(image=image, patient=self.shared, strategy=STRATEGY, parents=self.shared)
            for image in images
        ]

    def write(self, out: Path) -> list[Provenance]:
        """As ``DenoiserGeneration`` does, and first what a reader needs.

        That is whom the pairs descend from, which tables name once, the names of the classes, and the patients.
        """
        for folder in (IMAGES, LABELS):
            make_folder(out / folder)
        write_json(out / ANCESTORS, {self.shared: self.ancestors})
        write_json(out / "classes.json", {str(i): n for i, n in enumerate(self.plan.classes)})
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["image", "patient"])
        writer.writerows([row.image, row.patient] for row in self.rows())
        write_atomic(out / "patients.csv", buffer.getvalue())
        return super().write(out)

    def files(self, row: Provenance) -> list[str]:
        """The image and its mask."""
        return [row.image, _label_of(row)]

    def write_one(self, out: Path, row: Provenance, *drawn: Array) -> None:
        """Write image ``(C, *size)`` and mask ``(*size)``."""
        image, mask = drawn
        scan = self.write_image(out / row.image, image[0])
        write_label(out / _label_of(row), mask, scan)


def _label_of(row: Provenance) -> str:
    return row.image.replace(IMAGES, LABELS, 1)
