"""Parts of ``speed.py``: preparing films, patches of volumes, batches of films."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contest import Action, Comparison, Contest, in_a_child, timed
from PIL import Image

from radiffuse.config import FINETUNE_AUGMENTATION, Augmentation, Data, PlanSettings
from radiffuse.data.batches import Batches
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import make_plan
from radiffuse.data.prepare import prepare
from radiffuse.data.prepared import Prepared

FILMS, FILM_SIZE, DISTINCT = 1000, 512, 20
VOLUMES, SHAPE = 16, (160, 160, 96)
PATCH = 48


def film(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """A smooth 8-bit picture with the grain of a film, so that it compresses like one."""
    y, x = np.mgrid[:FILM_SIZE, :FILM_SIZE] / FILM_SIZE
    waves = sum(np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in rng.uniform(0.3, 4, (6, 3)))
    gray = (waves - waves.min()) / np.ptp(waves) * 220 + rng.normal(0, 3, x.shape) + 15
    return gray.clip(0, 255).astype(np.uint8)


def films(folder: Path) -> Path:
    """A thousand PNG files of twenty pictures, each decoded in full."""
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for i in range(FILMS):
            path = folder / f"film-{i:04d}.png"
            if i < DISTINCT:
                Image.fromarray(film(rng)).save(path)
            else:
                shutil.copy(folder / f"film-{i % DISTINCT:04d}.png", path)
        (folder / "done").touch()
    return folder


def volumes(folder: Path) -> Path:
    """Volumes as NIfTI."""
    import nibabel

    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for i in range(VOLUMES):
            values = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / f"v-{i:03d}.nii")
        (folder / "done").touch()
    return folder


def scratch(name: str) -> Path:
    """A folder beside the temporary files, kept for the next run."""
    return Path(tempfile.gettempdir()) / "radiffuse-speed" / name


def preparing(workers: int, known: Sequence[str] = ()) -> Contest:
    """1,000 films to arrays of 256 x 256: a fifth of them in each turn."""
    import monai.transforms as m

    dataset = open_dataset(films(scratch("films")))
    plan = make_plan(dataset, PlanSettings(size=(256, 256)), labelled=False)
    paths = [str(case.images[0]) for case in dataset.cases]
    read = m.Compose([
        m.LoadImage(image_only=True, ensure_channel_first=True),
        m.ScaleIntensityRangePercentiles(0.5, 99.5, -1.0, 1.0, clip=True),
        m.Resize((256, 256), mode="bilinear", anti_aliasing=True),
    ])  # fmt: skip
    turn: dict[str, Iterator[int]] = {"ours": iter(range(10**9)), "MONAI": iter(range(10**9))}

    def part(side: str) -> range:
        fifth = next(turn[side]) % 5
        return range(fifth * 200, fifth * 200 + 200)

    def mine() -> None:
        chosen = {dataset.cases[i].name for i in part("ours")}
        some = dataset.filter(lambda case: case.name in chosen)
        with tempfile.TemporaryDirectory() as cache:
            prepare(some, plan, labelled=False, cache=Path(cache), workers=workers)

    def theirs() -> None:
        with tempfile.TemporaryDirectory() as cache:
            out = np.lib.format.open_memmap(
                Path(cache) / "x.npy", "w+", np.float16, (200, 1, 256, 256)
            )
            for row, i in enumerate(part("MONAI")):
                out[row] = np.asarray(read(paths[i]), np.float16)

    def row() -> list[Comparison]:
        what = f"1,000 films of 512 x 512, {workers} core{'s' * (workers > 1)}, films/s"
        target = 2.0 if workers == 2 else None
        return [Comparison(what, "ours", "MONAI", unit="films/s", target=target, scale=200)]

    side = partial(timed, threads=workers)
    note = "200 films a turn; MONAI: one process, LoadImage and transforms, into the same array"
    return Contest({"ours": lambda: side(mine), "MONAI": lambda: side(theirs)}, row, workers, note)


def patches(known: Sequence[str] = ()) -> Contest:
    """Random patches of prepared volumes, and what memory they take with few and with many cases."""
    import monai.transforms as m
    from monai.data import DataLoader, PersistentDataset

    dataset = open_dataset(volumes(scratch("volumes")))
    settings = PlanSettings(size=(PATCH,) * 3, window=(-1000.0, 1000.0), spacing=(1.0, 1.0, 1.0))
    plan = make_plan(dataset, settings, labelled=False)
    prepared = prepare(dataset, plan, labelled=False, cache=scratch("prepared"))
    crop = m.Compose([
        m.LoadImage(image_only=True, ensure_channel_first=True),
        m.ScaleIntensityRange(-1000, 1000, -1.0, 1.0, clip=True),
        m.RandSpatialCrop((PATCH,) * 3, random_size=False),
    ])  # fmt: skip
    paths = [str(case.images[0]) for case in dataset.cases]
    persistent = PersistentDataset(paths, crop, cache_dir=scratch("persistent"))
    loader = DataLoader(persistent, batch_size=4, shuffle=True, num_workers=0)
    for i in range(VOLUMES):
        persistent[i]  # the cache is there before the clock runs
    per_turn = VOLUMES

    def batches(cases: int) -> Batches:
        return Batches(
            prepared, batch_size=4, seed=0, augmentation=Augmentation(), indices=range(cases)
        )

    everything, step = batches(VOLUMES), iter(range(10**9))

    def mine() -> None:
        for _ in range(10 * per_turn // 4):
            everything(next(step))

    def theirs() -> None:
        for _ in loader:
            pass

    def rise(cases: int) -> Action:
        def work() -> Mapping[str, float]:
            draw = batches(cases)
            draw(0)
            before = resident()
            for i in range(1, 33):
                draw(i)
            return {"mib": resident() - before + 1}

        return lambda: in_a_child(work)

    def once(work: Callable[[], None], number: int) -> Action:
        return lambda: {"seconds": timed(work)["seconds"] / number}

    actions = {
        "ours": once(mine, 10 * per_turn),
        "MONAI PersistentDataset": once(theirs, per_turn),
        "16 cases": rise(16),
        "4 cases": rise(4),
    }

    def rows() -> list[Comparison]:
        return [
            Comparison(
                "48 x 48 x 48 patches of 160 x 160 x 96 volumes per second",
                "ours", "MONAI PersistentDataset", unit="patches/s", target=5.0, scale=1,
            ),
            Comparison(
                "rise of memory over 128 patches (+ 1 MiB), four times the cases",
                "16 cases", "4 cases", "mib", "MiB",
            ),
        ]  # fmt: skip

    return Contest(actions, rows, note="batches of 4, no augmentation; files in the page cache")


def films2d(known: Sequence[str] = ()) -> Contest:
    """Augmented batches of films."""
    import monai.transforms as m
    from monai.data import CacheDataset, DataLoader

    dataset = open_dataset(films(scratch("films")), Data(only=r"film-00\d\d|film-01[0-5]\d"))
    plan = make_plan(dataset, PlanSettings(size=(128, 128)), labelled=False)
    prepared: Prepared = prepare(dataset, plan, labelled=False, cache=scratch("prepared"))
    change = FINETUNE_AUGMENTATION
    batches = Batches(prepared, batch_size=16, seed=0, augmentation=change)
    transform = m.Compose([
        m.LoadImage(image_only=True, ensure_channel_first=True),
        m.ScaleIntensityRangePercentiles(0.5, 99.5, -1.0, 1.0, clip=True),
        m.Resize((128, 128), mode="bilinear", anti_aliasing=True),
        m.RandAffine(
            prob=1.0, rotate_range=np.deg2rad(change.rotate), shear_range=(change.shear,) * 2,
            scale_range=(change.scale,) * 2, translate_range=(change.translate * 128,) * 2,
            mode="bilinear", padding_mode="reflection",
        ),
        m.RandAdjustContrast(prob=1.0, gamma=(2**-change.gamma, 2**change.gamma)),
        m.RandScaleIntensity(prob=1.0, factors=change.contrast),
        m.RandShiftIntensity(prob=1.0, offsets=change.brightness),
        m.RandGaussianNoise(prob=1.0, std=change.noise),
        m.ScaleIntensityRange(-1, 1, -1, 1, clip=True),
    ])  # fmt: skip
    cached = CacheDataset([str(c.images[0]) for c in dataset.cases], transform, progress=False)
    loader = DataLoader(cached, batch_size=16, shuffle=True, num_workers=0)
    step, number = iter(range(10**9)), len(cached) // 16

    def mine() -> None:
        for _ in range(number):
            batches(next(step))

    def theirs() -> None:
        for _ in loader:
            pass

    def rows() -> list[Comparison]:
        what = "batches of 16 films of 128 x 128 per second, affine and intensity changes"
        return [
            Comparison(
                what, "ours", "MONAI CacheDataset", unit="batches/s", target=3.0, scale=number
            )
        ]

    actions = {"ours": lambda: timed(mine), "MONAI CacheDataset": lambda: timed(theirs)}
    return Contest(actions, rows, note="DataLoader without workers: one core for both sides")


def resident() -> float:
    """MiB of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


PARTS: dict[str, Callable[[Sequence[str]], Contest]] = {
    "patches3d": patches,
    "batches2d": films2d,
    "prepare-1": partial(preparing, 1),
    "prepare-2": partial(preparing, 2),
}
