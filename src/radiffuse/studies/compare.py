"""Networks of others in a study's own tables: MONAI's DynUNet and nnU-Net, on the same cases, budgets and scoring."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from ..config import Compare, Study
from ..config.values import completed, from_dict, to_dict
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Dataset
from ..data.plan import find_classes
from ..data.readers import read_label
from ..data.scan import Scan
from ..errors import InputError
from ..evaluation.writing import write_evaluation
from ..reports.study import write_study_report
from ..system.files import read_json, write_json
from .nnunet import NNUNet
from .study import OUTSIDE, study, study_cases, write_results

OTHERS = ("dynunet", *OUTSIDE)


def compare(settings: Compare) -> Path:
    """Add networks of others to a study.

    Args:
        settings: See ``radiffuse.config.Compare``.

    Returns:
        The study folder's report; ``results.csv`` and the tables made from it have the new methods too.

    Raises:
        InputError: No study, an unknown method, or a program that fails; what was finished is kept.
    """
    out = Path(settings.study)
    chosen = _read_study(out)
    for method in settings.methods:
        if method not in OTHERS:
            problem = "is not a network of others"
            raise InputError(f"--methods {method}", problem, f"Choose from {', '.join(OTHERS)}")
    program = _program(settings, chosen, out) if "nnunet" in settings.methods else None
    if "dynunet" in settings.methods and "dynunet" not in chosen.methods:
        chosen = dataclasses.replace(chosen, methods=(*chosen.methods, "dynunet"))
    report = study(chosen)  # trains what is not there yet
    if program is None:
        return report
    write_json(out / "nnunet" / "nnunet.json", program.about())
    dataset, splits = study_cases(chosen)
    names = [name for part in chosen.parts for name in splits.part(part)]
    classes = find_classes(dataset)
    for labels in chosen.labels:
        for draw in range(chosen.draws):
            scores = out / "scores" / f"nnunet-{labels}-{draw}"
            if (scores / "cases.csv").exists():
                continue
            folder = out / "nnunet" / f"{labels}-{draw}"
            print(f"nnU-Net with {labels} labels, draw {draw}; its log is {folder / 'log.txt'}")
            training = splits.budget(labels, draw)
            masks, ending = program.segment(folder, dataset, classes, training, names)
            score_masks(dataset, names, masks, ending, classes, scores, chosen.tolerance)
            write_results(chosen)
    write_results(chosen)
    return write_study_report(out)


def score_masks(
    dataset: Dataset,
    names: Sequence[str],
    masks: Path,
    ending: str,
    classes: Sequence[str],
    out: Path,
    tolerance: float,
) -> Path:
    """Score masks of cases as the study scores its own.

    Args:
        dataset: Where the cases are.
        names: Which cases.
        masks: Folder of ``CASE`` + ``ending``.
        ending: Of their names.
        classes: Names by label value, background first.
        out: Folder for ``cases.csv`` and ``overlays.npz``.
        tolerance: Of the surface Dice, in mm.

    Raises:
        InputError: A mask cannot be read, or does not fit its case.
    """
    wanted = set(names)
    chosen = dataset.filter(lambda case: case.name in wanted)

    def quadruples() -> Iterator[tuple[str, Scan, Scan, Scan]]:
        for case in chosen:
            scan, truth = read_case_image(case), read_case_label(case)
            mask = read_label(masks / f"{case.name}{ending}")
            if scan.spatial_dims == 2 and mask.spatial_shape == scan.spatial_shape:
                mask = scan.with_array(mask.array)  # TIFF has no geometry of its own
            yield case.name, scan, mask, truth

    groups = {case.name: case.group for case in chosen}
    return write_evaluation(quadruples(), classes, out, tolerance=tolerance, groups=groups)


# ------------------------------------------------------------------------------------------------ internal


def _read_study(out: Path) -> Study:
    path = out / "study.yaml"
    if not path.is_file():
        raise InputError(
            out, "is not a study: study.yaml is missing", "Give the folder of radiffuse study"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        chosen: Study = from_dict(Study, completed(to_dict(Study()), values))
    except (yaml.YAMLError, OSError, UnicodeDecodeError, TypeError, AttributeError):
        raise InputError(path, "is damaged", "Restore it, or run the study again") from None
    return dataclasses.replace(chosen, out=str(out))


def _program(settings: Compare, chosen: Study, out: Path) -> NNUNet:
    if not settings.nnunet_python:
        raise InputError(
            "--methods nnunet",
            "needs an interpreter that has nnU-Net",
            "Give it with --nnunet-python, or leave --methods at dynunet",
        )
    accelerator = chosen.finetune.machine.accelerator
    program = NNUNet.find(
        settings.nnunet_python, settings.trainer, settings.configuration, accelerator
    )
    path = out / "nnunet" / "nnunet.json"
    if path.exists() and (before := read_json(path)) != program.about():
        changed = ", ".join(k for k, v in program.about().items() if before.get(k) != v)
        raise InputError(
            path,
            f"was written with another {changed}",
            f"Use the same, or remove {out / 'nnunet'} and {out / 'scores' / 'nnunet-*'}",
        )
    return program
