"""A segmenter as a MONAI bundle: ``python -m monai.bundle run`` executes it without this package.

The network is a program of torch.export. Films are resized inside of it as this package does it. Volumes are resampled
by MONAI's ``Spacingd``, which smooths less and counts from the center of the first voxel, not from its corner: masks
of volumes whose spacing is not the plan's differ at borders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..data.plan import Plan
from ..errors import InputError
from ..system.files import write_atomic, write_json
from ..train.run import Run
from .program import export_torch


def export_bundle(run: Run, out: Path, head: str | None = None) -> Path:
    """Write the folders ``configs``, ``models`` and ``scripts`` of a bundle.

    Args:
        run: A finished run of finetune or probe, with one channel.
        out: The folder.
        head: Of a probing run; None: the main one.

    Raises:
        InputError: The plan has a treatment that MONAI's transforms do not know.
        RunError: See ``program.trace``.
    """
    plan = run.plan
    for setting, value, known in (
        ("crop", plan.crop, (None, "nonzero") if plan.spatial_dims == 3 else (None,)),
        ("postprocess", plan.postprocess, ((), ("none",), ("largest",))),
        ("channels", len(plan.channels), (1,)),
    ):
        if value not in known:
            problem = f"has {setting} {value} in its plan, which the transforms of MONAI do not do"
            raise InputError(run.folder, problem, "Use radiffuse.Segmenter or another format")
    export_torch(run, out / "models", head)
    write_atomic(out / "scripts" / "__init__.py", "")
    write_atomic(out / "scripts" / "network.py", network_script())
    write_json(out / "configs" / "metadata.json", _metadata(plan, out.resolve().name))
    write_json(out / "configs" / "inference.json", inference(plan))
    return out


def usage(plan: Plan) -> str:
    """How to run a bundle of this plan, for its README."""
    kind = "PNG films" if plan.spatial_dims == 2 else "NIfTI volumes (.nii.gz)"
    return _render("bundle_usage.md", kind=kind)


def inference(plan: Plan) -> dict[str, Any]:
    """The bundle's ``inference.json``: from files to label maps on their own grids."""
    text = _render("bundle_inference.json", plan=plan, films=plan.spatial_dims == 2)
    return dict(json.loads(text))


def network_script() -> str:
    """The module of the bundle that holds its network; it needs nothing of this package."""
    return _render("bundle_network.py.txt")


def _render(name: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("radiffuse.release"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(values)


def _metadata(plan: Plan, name: str) -> dict[str, Any]:
    from importlib.metadata import version  # importing MONAI takes seconds

    from .. import __version__

    classes = {str(value): name for value, name in enumerate(plan.classes)}
    shape = list(plan.size)
    data = {"type": "image", "format": "magnitude", "spatial_shape": shape, "dtype": "float32"}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20220324.json",
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by radiffuse {__version__}"},
        "name": name,
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"pytorch-ignite": "0.5", "nibabel": "5.3", "pillow": "11"},
        "task": "segmentation",
        "description": f"Segmentation of {', '.join(plan.classes[1:])}; see README.md",
        "authors": "not stated",
        "copyright": "not stated; see README.md",
        "intended_use": "Research. Not a medical device.",
        "network_data_format": {
            "inputs": {
                "image": data
                | {
                    "num_channels": len(plan.channels),
                    "value_range": [-1, 1],
                    "is_patch_data": plan.spatial_dims == 3,
                    "channel_def": {str(i): name for i, name in enumerate(plan.channels)},
                }
            },
            "outputs": {
                "pred": data
                | {
                    "format": "segmentation",
                    "num_channels": len(plan.classes),
                    "value_range": [0, len(plan.classes) - 1],
                    "is_patch_data": plan.spatial_dims == 3,
                    "channel_def": classes,
                }
            },
        },
    }
