"""A segmenter as a MONAI bundle: ``python -m monai.bundle run`` executes it without this package.

The network is a program of torch.export. Films are resized inside of it as this package does it. Volumes are resampled
by MONAI's ``Spacingd``, which smooths less and counts from the center of the first voxel, not from its corner: masks
of volumes whose spacing is not the plan's differ at borders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.plan import Plan
from ..errors import InputError
from ..system.files import write_atomic, write_json
from ..train.run import Run
from .program import export_torch

SCRIPT = '''"""The network of this bundle: a program of torch.export; it holds weights, and no code of the training."""

import torch
from torch.nn.functional import interpolate, pad


class Network(torch.nn.Module):
    """Images (B, C, *spatial) in [-1, 1] to logits (B, K, *spatial).

    Args:
        path: The program.
        device: Where to compute.
        size: Films: (rows, columns) that the program takes; None: as given.
        fit: Films: keep the aspect and pad, instead of stretching.
    """

    def __init__(self, path, device, size=None, fit=False):
        super().__init__()
        program = torch.export.load(path)
        if torch.device(device).type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(device))
        self.program = [program.module()]  # in a list: programs have no train() and eval()
        self.size, self.fit = size, fit

    def forward(self, images):
        if not hasattr(images, "as_tensor"):
            return self.segment(images)
        from monai.utils import convert_to_dst_type

        # A MetaTensor: the program takes a plain one, what saves the mask wants its place.
        return convert_to_dst_type(self.segment(images.as_tensor()), images)[0]

    def segment(self, images):
        if self.size is None:
            return self.program[0](images)
        films = images.transpose(-1, -2)  # pictures are loaded as (columns, rows)
        shape = films.shape[-2:]
        inner = tuple(self.size)
        if self.fit:
            factor = min(n / s for n, s in zip(inner, shape))
            inner = tuple(max(1, round(s * factor)) for s in shape)
        small = films
        if tuple(shape) != inner:
            small = interpolate(films, inner, mode="bilinear", align_corners=False, antialias=True)
        top, left = ((n - i) // 2 for n, i in zip(self.size, inner))
        rest = [n - i for n, i in zip(self.size, inner)]
        small = pad(small, (left, rest[1] - left, top, rest[0] - top), value=-1.0)
        shares = self.program[0](small.contiguous()).softmax(1)
        shares = shares[..., top : top + inner[0], left : left + inner[1]]
        if tuple(shape) != inner:
            shares = interpolate(shares, tuple(shape), mode="bilinear", align_corners=False)
        return shares.transpose(-1, -2)
'''

USAGE = """
## This bundle

    python -m pip install "monai>=1.5" "pytorch-ignite>=0.5" fire nibabel pillow
    python -m monai.bundle run --config_file configs/inference.json --dataset_dir SCANS --output_dir MASKS

from this folder. `SCANS` holds {kind}. The network is `models/model.pt2`, a program of torch.export.
"""


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
    write_atomic(out / "scripts" / "network.py", SCRIPT)
    write_json(out / "configs" / "metadata.json", _metadata(plan, out.resolve().name))
    write_json(out / "configs" / "inference.json", _inference(plan))
    return out


def usage(plan: Plan) -> str:
    """How to run a bundle of this plan, for its README."""
    return USAGE.format(kind="PNG films" if plan.spatial_dims == 2 else "NIfTI volumes (.nii.gz)")


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


def _inference(plan: Plan) -> dict[str, Any]:
    films = plan.spatial_dims == 2
    size = list(plan.size)
    network: dict[str, Any] = {
        "_target_": "scripts.network.Network",
        "path": "$@bundle_root + '/models/model.pt2'",
        "device": "@device",
    }
    if films:
        network |= {"size": size, "fit": plan.resize == "fit"}
        inferer: dict[str, Any] = {"_target_": "SimpleInferer"}
    else:
        inferer = {
            "_target_": "SlidingWindowInferer",
            "roi_size": size,
            "sw_batch_size": 1,
            "overlap": 0.5,
            "mode": "gaussian",
            "padding_mode": "constant",
            "cval": -1.0,
        }
    suffix = "*.png" if films else "*.nii.gz"
    return {
        "imports": ["$import glob", "$import numpy as np", "$import os", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/masks'",
        "datalist": f"$sorted(glob.glob(os.path.join(@dataset_dir, '{suffix}')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network": network,
        "preprocessing": {"_target_": "Compose", "transforms": _before(plan)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": inferer,
        "postprocessing": {"_target_": "Compose", "transforms": _after(plan)},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@evaluator.run()"],
    }


def _before(plan: Plan) -> list[dict[str, Any]]:
    """From a file to what the program sees; intensities before resampling, as this package does it."""
    films = plan.spatial_dims == 2
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True}
    ]
    if films:
        gray = "$lambda image: image if image.mode[0] == 'I' else image.convert('L')"
        steps[0] |= {"reader": "PILReader", "converter": gray}
    else:
        steps.append({"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"})
    if plan.crop == "nonzero":
        steps.append(
            {
                "_target_": "CropForegroundd",
                "keys": "image",
                "source_key": "image",
                "select_fn": "$lambda x: x != 0",
                "allow_smaller": True,
            }
        )
    scaled = {"keys": "image", "b_min": -1.0, "b_max": 1.0, "clip": True}
    if plan.intensity == "window":
        ends = {"a_min": plan.low, "a_max": plan.high}
        steps.append({"_target_": "ScaleIntensityRanged"} | scaled | ends)
    else:
        ends = {"lower": plan.low, "upper": plan.high, "channel_wise": True}
        steps.append({"_target_": "ScaleIntensityRangePercentilesd"} | scaled | ends)
    if plan.spacing:
        spacing = {"pixdim": list(plan.spacing), "mode": "bilinear"}
        steps.append({"_target_": "Spacingd", "keys": "image"} | spacing)
    return steps


def _after(plan: Plan) -> list[dict[str, Any]]:
    """From logits to a label map on the file's own grid."""
    films = plan.spatial_dims == 2
    steps: list[dict[str, Any]] = []
    if not films:
        steps += [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
                "to_tensor": True,
            },
        ]
    steps.append({"_target_": "AsDiscreted", "keys": "pred", "argmax": True})
    if plan.postprocess == ("largest",):
        labels = list(range(1, len(plan.classes)))
        largest = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"}
        steps.append(largest | {"applied_labels": labels, "is_onehot": False})
    steps.append(
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_ext": ".png" if films else ".nii.gz",
            "output_postfix": "",
            "output_dtype": "$np.uint8",
            "separate_folder": False,
            "resample": False,
        }
        | ({"writer": "PILWriter"} if films else {})
    )
    return steps
