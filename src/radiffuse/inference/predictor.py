"""A trained segmentation run, ready to segment scans: plan, network, way back to the scan's own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Machine
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Dataset
from ..data.plan import Plan
from ..data.scan import Array, Scan
from ..data.transform import image_to_plan, scores_to_scan
from ..engine.device import make_fabric
from ..engine.run import Run
from ..errors import InputError, RunError
from ..nets.registry import load_network


@dataclass(frozen=True)
class Segmented:
    """A segmented scan on the scan's own grid.

    Attributes:
        mask: uint8 ``(*spatial)``, values by ``Plan.classes``.
        confidence: float32 ``(*spatial)``, probability of the winning class, 0 to 1.
    """

    mask: Array
    confidence: Array


class Predictor:
    """Segments scans with one network.

    Args:
        network: ``network(images) -> logits (B, K, *S)``.
        plan: How scans are treated.
        device: Where to compute.
        autocast: Context manager for the arithmetic.
        overlap: 3D: share by which windows overlap.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: Plan,
        device: torch.device,
        autocast: Callable[[], Any],
        overlap: float = 0.5,
    ) -> None:
        self.network = network.to(device).eval()
        self.plan = plan
        self.device = device
        self.autocast = autocast
        self.overlap = overlap

    @classmethod
    def open(cls, run: Run, machine: Machine, overlap: float = 0.5) -> Predictor:
        """The predictor of a finished run.

        Raises:
            RunError: Not finished, damaged, or without classes.
        """
        if not run.finished:
            command = run.config.get("command")
            raise RunError(
                run.folder, "has not finished training", f"Run radiffuse {command} again to resume"
            )
        plan = run.plan
        if not plan.classes:
            raise RunError(run.folder, "is no segmentation run", "Give a run of radiffuse finetune")
        fabric = make_fabric(machine)
        network = load_network(run.model)
        if plan.spatial_dims == 2 and machine.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(network, plan, fabric.device, fabric.autocast, overlap)

    @torch.no_grad()
    def __call__(self, scan: Scan) -> Segmented:
        """Segment one scan.

        Raises:
            InputError: The scan has other axes or channels than the plan.
        """
        if scan.spatial_dims != self.plan.spatial_dims:
            raise InputError(
                "scan",
                f"has {scan.spatial_dims} spatial axes, the run has {self.plan.spatial_dims}",
                "Give films to a 2D run and volumes to a 3D run",
            )
        image, undo = image_to_plan(scan, self.plan)
        if image.shape[0] != len(self.plan.channels):
            raise InputError(
                "scan",
                f"has {image.shape[0]} channels, the run has {len(self.plan.channels)}",
                "Give the channels that the run was trained on",
            )
        logits = self._logits(torch.from_numpy(image)[None])[0]
        mask, confidence = scores_to_scan(logits.softmax(0), undo)
        return Segmented(mask, confidence)

    def pairs(self, dataset: Dataset) -> Iterator[tuple[str, Scan, Scan, Scan]]:
        """Name, image, predicted and true label map of each case, read and segmented one by one."""
        for case in dataset:
            scan = read_case_image(case)
            truth = read_case_label(case)
            yield case.name, scan, scan.with_array(self(scan).mask[None]), truth

    def _logits(self, images: Tensor) -> Tensor:
        """``(1, K, *grid)`` float32 on the CPU."""
        with self.autocast():
            if self.plan.spatial_dims == 2:
                return self.network(images.to(self.device)).float().cpu()  # type: ignore[no-any-return]
            from monai.inferers import sliding_window_inference

            size = images.shape[2:]
            return sliding_window_inference(  # type: ignore[no-any-return]
                images,
                self.plan.size,
                1,
                self.network,
                overlap=self.overlap,
                mode="gaussian",
                padding_mode="constant",
                cval=-1.0,
                sw_device=self.device,
                device=torch.device("cpu"),
            ).float()[(..., *(slice(0, n) for n in size))]
