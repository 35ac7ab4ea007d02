"""Segment cases of a data set and write their masks, here or on the workers of a cluster."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config import Predict
from ..data.cases import read_case_image
from ..data.dataset import Case
from ..data.readers import write_image, write_label
from ..errors import InputError
from ..train.run import Run
from .dicom_seg import write_dicom_seg
from .members import Overrides
from .predictor import Predictor


class MaskWriter:
    """Segments a case and writes its mask, unless it exists; on a cluster each worker opens the runs itself."""

    def __init__(self, settings: Predict) -> None:
        self.settings = settings

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings}

    @cached_property
    def predictor(self) -> Predictor:
        """The runs, ready to segment."""
        settings = self.settings
        return Predictor.open(
            [Run.open(folder) for folder in settings.runs],
            settings.machine,
            Overrides(settings.sampler, settings.steps, settings.legacy_timesteps, settings.head),
            overlap=settings.overlap,
            samples=settings.samples,
            ensemble=settings.ensemble,
            uncertainty=settings.uncertainty,
            seed=settings.seed,
        )

    def __call__(self, case: Case) -> None:
        """Write the mask of a case, named as the case, and the requested maps.

        Raises:
            InputError: The scan cannot be read, or does not have the axes and channels of the plan.
        """
        plan, out = self.predictor.plan, Path(self.settings.out)
        image_suffix, map_suffix = (
            (".png", ".tif") if plan.spatial_dims == 2 else (".nii.gz", ".nii.gz")
        )
        dicom = self.settings.format == "dicom-seg"
        path = out / f"{case.name}{'.dcm' if dicom else image_suffix}"
        if path.exists():
            return
        # A single four-dimensional file may hold all channels that the run wants.
        scan = read_case_image(
            replace(case, file_channels=max(case.file_channels, len(plan.channels)))
        )
        try:
            segmented = self.predictor(scan, case.name)
        except InputError as error:
            raise InputError(case.images[0], error.problem, error.remedy) from None
        maps = dict(segmented.maps)
        if self.settings.confidence:
            maps["confidence"] = segmented.confidence
        for kind, values in maps.items():
            write_image(out / f"{case.name}-{kind}{map_suffix}", values, scan)
        # The mask comes last: it marks the case as done.
        if dicom:
            write_dicom_seg(path, segmented.mask, plan.classes, case.images[0], case.series)
        else:
            write_label(path, segmented.mask, scan)
