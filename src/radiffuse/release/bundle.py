"""A segmenter as a MONAI bundle: ``python -m monai.bundle run`` executes it without this package.

The network is a program of torch.export. Films are resized inside of it as this package does it. Volumes are resampled
by MONAI's ``Spacingd``, which smooths less and counts from the center of the first voxel, not from its corner: masks
of volumes whose spacing is not the plan's differ at borders.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..data.plan import Plan
from ..data.steps import split_step
from ..errors import InputError
from ..system.files import write_atomic, write_json
from ..train.run import Run
from .documents import render
from .program import Write, left_out, torch_program

KNOWN = re.compile(r"none|(\d+=)?(largest|keep:\d+|(drop|islands):[\d.]+)")
"""Steps after segmentation that MONAI has as well."""

ENDINGS = {True: (".png", ".jpg", ".jpeg"), False: (".nii.gz", ".nii")}
"""Of files that a bundle reads, of films and of volumes."""


def bundle(run: Run, head: str | None = None) -> Write:
    """What writes the folders ``configs``, ``models`` and ``scripts`` of a bundle.

    Args:
        run: A finished run of fit that labels an image in one pass, with one channel.
        head: Of a probed network; None: the main one.

    Raises:
        InputError: The plan has a treatment that MONAI's transforms do not know.
        RunError: See ``program.trace``.
    """
    plan = run.plan
    other = [step for step in plan.postprocess if not KNOWN.fullmatch(step)]
    for setting, value, known in (
        ("postprocess", tuple(other), ((),)),
        ("crop", plan.crop, (None, "nonzero") if plan.spatial_dims == 3 else (None,)),
        ("grid", plan.grid, (None, plan.size)),
        ("channels", len(plan.channels), (1,)),
    ):
        if value not in known:
            problem = f"has {setting} {value} in its plan, which the transforms of MONAI do not do"
            raise InputError(run.folder, problem, "Use radiffuse.Segmenter or another format")
    write_program = torch_program(run, head)

    def write(out: Path) -> None:
        write_program(out / "models")
        write_atomic(out / "scripts" / "__init__.py", "")
        write_atomic(out / "scripts" / "network.py", render("bundle_network.py.txt"))
        write_json(out / "configs" / "metadata.json", _metadata(plan, out.resolve().name))
        write_json(out / "configs" / "inference.json", inference(plan))

    return write


def usage(run: Run) -> str:
    """How to run a bundle of this run, for its README."""
    kind = "PNG or JPEG films" if run.plan.spatial_dims == 2 else "NIfTI volumes"
    return render("bundle_usage.md", kind=kind, left_out=left_out(run, steps=False))


def inference(plan: Plan) -> dict[str, Any]:
    """The bundle's ``inference.json``: from files to label maps on their own grids."""
    steps = [_pieces(step, plan) for step in plan.postprocess if step != "none"]
    films = plan.spatial_dims == 2
    text = render(
        "bundle_inference.json", plan=plan, films=films, steps=steps, endings=ENDINGS[films]
    )
    return dict(json.loads(text))


def _pieces(step: str, plan: Plan) -> tuple[str, list[int], float]:
    """A step after segmentation, ``keep``, ``drop`` or ``islands``, its classes, and the number that it names."""
    value, name, numbers = split_step(step)
    classes = [*range(1, len(plan.classes))] if value is None else [value]
    if name in ("drop", "islands"):
        return name, classes, numbers[0]
    return "keep", classes, int(numbers[0]) if numbers else 1


def _metadata(plan: Plan, name: str) -> dict[str, Any]:
    from importlib.metadata import version  # importing MONAI takes seconds

    from .. import __version__

    versions = {p: version(p).partition("+")[0] for p in ("monai", "torch", "numpy")}
    text = render("bundle_metadata.json", plan=plan, name=name, version=__version__, **versions)
    return dict(json.loads(text))
