"""The acts that ``scale.py`` measures: each takes an empty folder and returns one number.

Seconds are those of the processor, of one thread, so that a busy machine does not change them much; waiting for the
disk is not in them. Where several processes or threads share the work they are those of the clock.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Imported here, before any child is forked, so that no measurement pays for it.
import radiffuse
import radiffuse.commands.classify
import radiffuse.commands.fit
import radiffuse.commands.predict
import radiffuse.commands.pretrain
from radiffuse.config import Data, Network, PlanSettings, resolve_network
from radiffuse.data.batches import Batch, Batches
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import make_plan
from radiffuse.data.prepare import prepare
from radiffuse.phantoms import write_dataset

Measure = tuple[str, int, int, str, Callable[[Path], float]]
COUNTS = (10, 100, 1_000, 10_000)
DRAWN = 100
"""Films that are drawn; larger sets hold copies of them, each a file of its own."""
SIDES = (32, 64, 128, 256)
VOLUME_SIDES = (32, 64, 96, 128)
SMALL = {"preset": "tiny", "width": 8, "multipliers": (1, 2), "attention_factors": (), "blocks": 1}
"""Two levels, for films of 32 pixels."""
THIN = {"preset": "tiny", "width": 8}
"""Four levels, as networks in use have, so that attention, quadratic in the pixels, is at the coarsest alone."""
TINY = {"preset": "tiny"}
MACHINE = {"accelerator": "cpu", "precision": "32-true", "threads": 1, "workers": 1}
STEPS = 11


def growth(work: Path) -> Iterator[Measure]:
    """Bookkeeping: films of 32 pixels, so that what a case costs is not its pixels."""
    run = _segmenter(work, 32)
    for count in COUNTS:
        films = _films(work, 32, count)
        prepared = work / f"prepared-{count}"
        _prepare(films, prepared, 32)
        whole = functools.partial
        yield "prepare", count, 32, "s per case", whole(_prepare_case, films, 32)
        yield "open prepared", count, 32, "s per case", whole(_open_case, films, prepared, 32)
        yield "train", count, 32, "s per step", whole(_train_step, films, prepared, 32)
        yield "predict", count, 32, "s per case", whole(_predict_case, films, run)


def sizes(work: Path) -> Iterator[Measure]:
    """Pixels: eight films, and one volume, of growing side."""
    for side in SIDES:
        films = _films(work, side, 8)
        cache = work / f"sized-{side}"
        _prepare(films, cache, side)
        run = _segmenter(work, side, THIN)
        yield "prepare", 8, side, "s per case", functools.partial(_prepare_case, films, side)
        step = functools.partial(_train_step, films, cache, side, network=THIN)
        yield "train", 8, side, "s per step", step
        yield "predict", 8, side, "s per case", functools.partial(_predict_case, films, run)
    for side in VOLUME_SIDES:
        yield (
            "prepare volume",
            1,
            side,
            "s per case",
            functools.partial(_prepare_volume, _volume(work, side)),
        )


def processes(work: Path) -> Iterator[Measure]:
    """One process against two, and threads against the workers of dask."""
    films = _films(work, 64, 1_000)
    cache = work / "shared"
    _prepare(films, cache, 64)
    for number in (1, 2):
        step = functools.partial(_together, films, cache, 64, number)
        yield f"train, {number} processes", 1_000, 64, "s per step", step
    for number in (1, 2):
        threads = functools.partial(_threads, films, 64, number)
        yield f"prepare, {number} threads", 1_000, 64, "s per case", threads
    yield "prepare, 2 dask workers", 1_000, 64, "s per case", functools.partial(_dask, films, 64)


def units(work: Path) -> Iterator[Measure]:
    """Unit costs of the plan, one thread each."""
    film = _large_film(work)
    yield "film 2048 to 256", 1, 2048, "s per case", functools.partial(_prepare_case, film, 256)
    yield "bytes of a film", 1, 2048, "bytes", functools.partial(_size, film)
    volume = _volume(work, 128)
    yield "volume", 1, 128, "s per megavoxel", functools.partial(_prepare_megavoxel, volume)
    yield "bytes of a volume", 1, 128, "bytes per megavoxel", functools.partial(_density, volume)
    yield "film DINOv2-base", 1, 224, "s per case", functools.partial(_embed, _encoder())
    yield "denoiser step", 1, 64, "s per GFLOP", _seconds_per_gflop
    yield "ptdr-paper, training step of an image", 1, 256, "GFLOP", _gflop_of_the_paper
    run = _segmenter(work, 256, TINY)
    predict = functools.partial(_predict_case, _films(work, 256, 64), run)
    yield "film masks", 64, 256, "s per case", predict


PARTS: dict[str, Callable[[Path], Iterator[Measure]]] = {
    "growth": growth,
    "sizes": sizes,
    "processes": processes,
    "units": units,
}

# ------------------------------------------------------------------------------------------------ acts


def _prepare_case(films: Path, side: int, out: Path) -> float:
    began = time.process_time()
    count = _prepare(films, out, side)
    return (time.process_time() - began) / count


def _threads(films: Path, side: int, number: int, out: Path) -> float:
    began = time.perf_counter()
    count = _prepare(films, out, side, workers=number)
    return (time.perf_counter() - began) / count


def _open_case(films: Path, cache: Path, side: int, out: Path) -> float:
    return _prepare_case(films, side, cache)


def _train_step(
    films: Path, cache: Path, side: int, out: Path, network: Mapping[str, Any] = SMALL
) -> float:
    times: list[float] = []
    batch = Batches.__call__

    def timed(self: Batches, step: int, rank: int = 0, world: int = 1) -> Batch:
        times.append(time.process_time())
        return batch(self, step, rank, world)

    Batches.__call__ = timed  # type: ignore[method-assign]
    radiffuse.pretrain(**_training(films, out / "run", cache, side) | {"network": network})
    return statistics.median(b - a for a, b in itertools.pairwise(times[1:]))


def _predict_case(films: Path, run: Path, out: Path) -> float:
    began = time.process_time()
    masks = radiffuse.predict(runs=(str(run),), data=films, out=out / "masks", machine=MACHINE)
    count = sum(1 for path in masks.iterdir() if path.suffix == ".png")
    return (time.process_time() - began) / count


def _prepare_volume(volume: Path, out: Path) -> float:
    began = time.process_time()
    _prepare(volume, out, None)
    return time.process_time() - began


def _prepare_megavoxel(volume: Path, out: Path) -> float:
    return _prepare_volume(volume, out) / (128**3 / 1e6)


def _size(folder: Path, out: Path) -> float:
    return statistics.mean(path.stat().st_size for path in folder.iterdir())


def _density(folder: Path, out: Path) -> float:
    return _size(folder, out) / (128**3 / 1e6)


def _together(films: Path, cache: Path, side: int, number: int, out: Path) -> float:
    """Seconds per step of so many processes of one thread; the batch is the same."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = _training(films, out / "run", cache, side)
    children = []
    for rank in range(number):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if number > 1:
                    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
                    values = (rank, rank, number, number, port)
                    os.environ.update({k: str(v) for k, v in zip(names, values, strict=True)})
                    os.environ |= {
                        "MASTER_ADDR": "127.0.0.1",
                        "GROUP_RANK": "0",
                        "TORCHELASTIC_RUN_ID": "s",
                    }
                radiffuse.pretrain(**settings)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        raise RuntimeError("a process failed")
    return _seconds_per_step(out / "run")


def _dask(films: Path, side: int, out: Path) -> float:
    """Without the start of the workers, and without their first imports."""
    from distributed import LocalCluster

    with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster:
        _prepare(_part(films, out / "few", 130), out / "warm", side, cluster.scheduler_address)
        began = time.perf_counter()
        count = _prepare(films, out / "cache", side, cluster.scheduler_address)
        return (time.perf_counter() - began) / count


def _encoder() -> torch.nn.Module:
    """DINOv2-base with weights as they are drawn; time does not depend on them."""
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(image_size=224)).eval()


def _embed(network: torch.nn.Module, out: Path) -> float:
    torch.set_num_threads(1)
    films = torch.zeros(2, 3, 224, 224)
    with torch.no_grad():
        began = time.process_time()
        network(pixel_values=films)
    return (time.process_time() - began) / len(films)


def _gflop_of_the_paper(out: Path) -> float:
    from radiffuse.nets.summary import summarize

    paper = Network(preset="paper")
    config = resolve_network(paper, spatial_dims=2, in_channels=1, out_channels=1)
    return 3 * summarize(config, (256, 256)).forward_flops / 1e9


def _seconds_per_gflop(out: Path) -> float:
    """Of a training step of the preset ``small`` on films of 64 pixels."""
    from radiffuse.nets.summary import summarize
    from radiffuse.nets.unet import UNet

    torch.set_num_threads(1)
    config = resolve_network(Network(preset="small"), spatial_dims=2, in_channels=1, out_channels=1)
    network = UNet(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    films = torch.randn(4, 1, 64, 64).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(2):
        began = time.process_time()
        network(films, torch.full((4,), 10)).square().mean().backward()
        times.append(time.process_time() - began)
    return min(times) / (3 * summarize(config, (64, 64), 4).forward_flops / 1e9)


# ------------------------------------------------------------------------------------------------ material


def _prepare(
    data: Path, cache: Path, side: int | None, scheduler: str | None = None, workers: int = 1
) -> int:
    dataset = open_dataset(data, Data())
    settings = PlanSettings(size=(side, side)) if side else PlanSettings(spacing=(2.0, 2.0, 2.0))
    plan = make_plan(dataset, settings, labelled=False)
    return len(
        prepare(dataset, plan, labelled=False, cache=cache, workers=workers, scheduler=scheduler)
    )


def _training(films: Path, out: Path, cache: Path, side: int) -> dict[str, Any]:
    return {
        "data": str(films),
        "out": str(out),
        "network": SMALL,
        "plan": {"size": (side, side)},
        "diffusion": {"num_train_timesteps": 2},
        "training": {"steps": STEPS, "batch_size": 8, "log_every": 1, "validate_every": 0},
        "reader": {"cache": str(cache)},
        "machine": MACHINE,
    }


def _seconds_per_step(run: Path) -> float:
    """Without the first step, which warms up."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    seconds = [row["seconds"] for row in rows if "loss" in row]
    return float(seconds[-1] - seconds[0]) / (len(seconds) - 1)


def _films(work: Path, side: int, count: int) -> Path:
    folder, drawn = work / f"films-{side}-{count}", work / f"drawn-{side}"
    if not folder.exists():
        write_dataset(
            "bitewing", drawn, count=min(count, DRAWN), labelled=False, seed=0, size=(side, side)
        )
        sources = sorted(drawn.iterdir())[: min(count, DRAWN)]
        folder.mkdir()
        for i in range(count):
            shutil.copyfile(sources[i % len(sources)], folder / f"film-{i:06d}.png")
    return folder


def _part(films: Path, out: Path, count: int) -> Path:
    out.mkdir()
    for path in sorted(films.iterdir())[:count]:
        shutil.copyfile(path, out / path.name)
    return out


def _large_film(work: Path) -> Path:
    """A film of 2048 pixels: a drawn one, enlarged, with the noise that keeps real ones from compressing."""
    from PIL import Image

    folder = work / "large"
    if not folder.exists():
        source = sorted(_films(work, 256, 8).iterdir())[0]
        pixels = np.asarray(Image.open(source).resize((2048, 2048)), np.float32)
        noise = np.random.default_rng(0).normal(0, 2, pixels.shape)
        folder.mkdir()
        film = Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
        film.save(folder / "film.png")
    return folder


def _volume(work: Path, side: int) -> Path:
    import nibabel as nib

    folder = work / f"volume-{side}"
    if not folder.exists():
        rng = np.random.default_rng(side)
        coarse = rng.normal(0, 400, (8, 8, 8))
        grid = np.kron(coarse, np.ones((side // 8,) * 3)) + rng.normal(0, 20, (side,) * 3)
        folder.mkdir()
        image = nib.Nifti1Image(grid.astype(np.int16), np.diag([1.0, 1, 1, 1]))  # type: ignore[no-untyped-call]
        nib.save(image, folder / "volume.nii.gz")
    return folder


def _segmenter(work: Path, side: int, network: Mapping[str, Any] = SMALL) -> Path:
    """A trained segmentation run; forked, since a process that has trained cannot be forked for more."""
    run = work / f"segmenter-{side}"
    if not run.exists():
        data = work / f"labelled-{side}"
        write_dataset("bitewing", data, count=6, labelled=True, seed=1, size=(side, side))
        settings = _training(data, run, work / "cache", side)
        settings.pop("diffusion")
        settings["network"] = network
        settings["training"] = settings["training"] | {"steps": 1, "batch_size": 2}
        child = os.fork()
        if child == 0:
            try:
                radiffuse.fit(**settings, method="scratch")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        if not (run / "model" / "config.json").exists():
            raise RuntimeError("the segmenter could not be trained")
    return run
