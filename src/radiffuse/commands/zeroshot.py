"""Segment films by the self-attention of a synthesizer that never saw a label.

DiffSeg (Tian et al. 2024) on the denoiser: the maps of all layers, averaged over passes, become segments. A rule says
which of them are lungs; only that is zero-shot. Where there is truth, the segments that lie in it are scored beside
it, under another name, since choosing them needs the truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from ..config import IGNORE, ZeroShot
from ..core.diffusion import GaussianDiffusion
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case
from ..data.plan import Plan
from ..data.readers import label_suffix, write_label
from ..data.scan import Array, Scan
from ..data.transform import image_to_plan, map_to_scan
from ..errors import InputError
from ..synthesis.attention import recorded
from ..synthesis.lungs import name_lungs
from ..synthesis.pipeline import Synthesizer, load_synthesizer
from ..synthesis.segments import aggregate, segments
from ..system.files import sweep, write_atomic, write_json
from ..train.cases import read_dataset
from ..train.device import local_fabric
from ..train.progress import ProgressLine
from ..train.start import find_pretrained

if TYPE_CHECKING:
    import pandas as pd

TIMESTEPS = (50, 150, 300)
"""Of the passes; shares of T where T is not 1000. [related] one pass at 300; [ours] several, for less noise."""
DRAWS = 4
"""Passes at each timestep, each with its own noise. [ours]"""
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
        found = segment_film(synthesizer, plan, scan, seed=settings.seed)
        gray = scan.array.astype(np.float32).mean(0)
        mask = name_lungs(found, gray)
        suffix = label_suffix(scan)
        write_label(out / "segments" / f"{case.name}{suffix}", found.astype(np.uint8), scan)
        write_label(out / f"{case.name}{suffix}", mask.astype(np.uint8), scan)
        if case.label is not None:
            rows.append(_scores(case, found, mask))
        line.update(number, len(dataset), case.name)
    if rows:
        table = pd.DataFrame(rows)
        write_atomic(out / "zeroshot.csv", table.to_csv(index=False, float_format="%.4f"))
        _tell(table)
    return out


@torch.no_grad()
def segment_film(synthesizer: Synthesizer, plan: Plan, scan: Scan, *, seed: int = 0) -> Array:
    """Segments of a film on its own grid, ``(rows, columns)`` of 0, 1, 2, ...

    The denoiser is told the film's own embedding.
    """
    image, undo = image_to_plan(scan, plan)
    device = next(synthesizer.autoencoder.parameters()).device
    images = torch.from_numpy(image)[None].to(device)
    channels = synthesizer.autoencoder.latent_channels
    latents = synthesizer.autoencoder.encode(images)[:, :channels]
    process = GaussianDiffusion(synthesizer.diffusion).to(device)
    context = synthesizer.encoder(images)
    generator = torch.Generator().manual_seed(seed)
    steps = [t * process.num_train_timesteps // 1000 for t in TIMESTEPS for _ in range(DRAWS)]
    with recorded(synthesizer.denoiser.eval()) as maps:
        for step in steps:
            noise = torch.randn(latents.shape, generator=generator).to(device)
            t = torch.full((1,), step, device=device)
            synthesizer.denoiser(process.add_noise(latents, noise, t), t, context)
    size = (int(latents.shape[2]), int(latents.shape[3]))
    soft = segments(aggregate([m[0] for m in maps], size))
    fine = functional.interpolate(soft[None], plan.size, mode="bilinear", align_corners=False)[0]
    found: Array = np.stack([map_to_scan(x, undo) for x in fine]).argmax(0)
    return found


# ------------------------------------------------------------------------------------------------ internal


def _scores(case: Case, found: Array, mask: Array) -> dict[str, Any]:
    truth = read_case_label(case).array[0]
    counted = truth != IGNORE
    lung = (truth > 0) & counted
    matched = np.zeros(lung.shape, bool)
    for value in np.unique(found):
        part = (found == value) & counted
        # With the truth in hand: a segment belongs to the lungs where more than half of it does.
        if (part & lung).sum() > 0.5 * part.sum():
            matched |= part
    return {
        "case": case.name,
        "group": case.group,
        "segments": len(np.unique(found)),
        "dice_rule": _dice(mask & counted, lung),
        "dice_matched": _dice(matched, lung),
    }


def _dice(guess: Array, truth: Array) -> float:
    total = int(guess.sum() + truth.sum())
    return 2 * float((guess & truth).sum()) / total if total else float("nan")


def _tell(table: pd.DataFrame) -> None:
    rule, matched = table["dice_rule"].mean(), table["dice_matched"].mean()
    print(f"lungs named by rule, zero-shot: Dice {rule:.3f}, n = {len(table)}")
    print(f"segments matched with the truth, not zero-shot: Dice {matched:.3f}")
