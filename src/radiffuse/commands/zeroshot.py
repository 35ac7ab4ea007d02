"""``radiffuse zeroshot``: segments of films by the self-attention of a synthesizer, and a rule that names the lungs.

Only the rule is zero-shot. Where there is truth, the segments that lie in it are scored beside it, under another name,
since choosing them needs the truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import IGNORE, ZeroShot
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case
from ..data.readers import label_suffix, write_label
from ..data.scan import Array
from ..errors import InputError
from ..synthesis.lungs import name_lungs
from ..synthesis.segments import segment_film
from ..synthesis.synthesizer import load_synthesizer
from ..system.files import sweep, write_atomic, write_json
from ..train.cases import read_dataset
from ..train.device import local_fabric
from ..train.progress import ProgressLine
from ..train.start import find_pretrained

if TYPE_CHECKING:
    import pandas as pd

LUNGS = ("background", "lung")


def zeroshot(settings: ZeroShot) -> Path:
    """Write masks and segments of every film; where there is truth, scores.

    Args:
        settings: See ``radiffuse.config.ZeroShot``.

    Returns:
        The folder: masks named as the cases, ``segments/``, and ``zeroshot.csv`` where there are labels.

    Raises:
        InputError: The run is no synthesizer, or a film cannot be read.
    """
    import pandas as pd

    run = find_pretrained(settings.run)
    plan = run.plan
    synthesizer = load_synthesizer(run.model, len(plan.channels))
    device = local_fabric(settings.machine).device
    synthesizer.to(device)
    dataset = read_dataset(settings.data, settings.reader)
    out = Path(settings.out)
    sweep(out)
    (out / "segments").mkdir(parents=True, exist_ok=True)
    write_json(out / "classes.json", {str(i): name for i, name in enumerate(LUNGS)})
    line, rows = ProgressLine("segmenting"), []
    for number, case in enumerate(dataset, start=1):
        scan = read_case_image(case)
        if scan.spatial_dims != 2:
            raise InputError(case.images[0], "is a volume", "Zero-shot segmentation takes films")
        regions = segment_film(synthesizer, plan, scan, seed=settings.seed)
        gray = scan.array.astype(np.float32).mean(0)
        mask = name_lungs(regions, gray)
        suffix = label_suffix(scan)
        write_label(out / "segments" / f"{case.name}{suffix}", regions.astype(np.uint8), scan)
        write_label(out / f"{case.name}{suffix}", mask.astype(np.uint8), scan)
        if case.label is not None:
            rows.append(_scores(case, regions, mask))
        line.update(number, len(dataset), case.name)
    if rows:
        table = pd.DataFrame(rows)
        write_atomic(out / "zeroshot.csv", table.to_csv(index=False, float_format="%.4f"))
        _print(table)
    return out


# ------------------------------------------------------------------------------------------------ internal


def _scores(case: Case, regions: Array, mask: Array) -> dict[str, Any]:
    truth = read_case_label(case).array[0]
    counted = truth != IGNORE
    lung = (truth > 0) & counted
    matched = np.zeros(lung.shape, bool)
    for value in np.unique(regions):
        part = (regions == value) & counted
        # With the truth in hand: a segment belongs to the lungs where more than half of it does.
        if (part & lung).sum() > 0.5 * part.sum():
            matched |= part
    return {
        "case": case.name,
        "group": case.group,
        "segments": len(np.unique(regions)),
        "dice_rule": _dice(mask & counted, lung),
        "dice_matched": _dice(matched, lung),
    }


def _dice(guess: Array, truth: Array) -> float:
    total = int(guess.sum() + truth.sum())
    return 2 * float((guess & truth).sum()) / total if total else float("nan")


def _print(table: pd.DataFrame) -> None:
    rule, matched = table["dice_rule"].mean(), table["dice_matched"].mean()
    print(f"lungs named by rule, zero-shot: Dice {rule:.3f}, n = {len(table)}")
    print(f"segments matched with the truth, not zero-shot: Dice {matched:.3f}")
