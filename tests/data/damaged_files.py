"""Sound files of every kind that is read, ways to damage them, and what reading them may then do.

Used by the tests and by ``benchmarks/faults.py``.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from layout_files import coco, film, film_label, write_json
from read_samples import dicom, rng, save, write_series

from radiffuse.config import Data, PlanSettings, Split
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import survey
from radiffuse.data.plan import make_plan, read_plan
from radiffuse.data.readers import inspect, read_label, read_scan
from radiffuse.data.scan import Scan
from radiffuse.data.splits import load_splits
from radiffuse.errors import InputError

MOST_GROWTH = 2**19
"""kB that reading a damaged file of a few kB may take at most."""


@dataclass(frozen=True)
class Sample:
    """A folder with a sound file among those it needs.

    Attributes:
        folder: The folder.
        file: The file that is damaged, relative to the folder.
        read: Reads it, given the folder; raises InputError where it cannot.
    """

    folder: Path
    file: str
    read: Callable[[Path], object]


def make_documents(folder: Path) -> dict[str, Sample]:
    """Files that describe data and runs: annotations, tables, plans, splits, settings, models, checkpoints."""
    import torch

    from radiffuse.cli.settings import from_values
    from radiffuse.config import UNetConfig
    from radiffuse.config.values import to_dict
    from radiffuse.nets.registry import load_network, save_network
    from radiffuse.nets.unet import UNet
    from radiffuse.train.checkpoint import Checkpoint, load_newest, save_checkpoint
    from radiffuse.train.run import Run
    from radiffuse.train.start_run import start_run

    folder.mkdir(parents=True)
    outlines = [
        {"id": 1, "image_id": 0, "category_id": 3, "segmentation": [[2, 3, 6, 3, 6, 8, 2, 8]]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 7,
            "iscrowd": 1,
            "segmentation": {"size": [10, 12], "counts": [5, 20, 95]},
        },
    ]
    coco(folder / "coco", annotations=outlines)
    for i, name in enumerate("abcd"):
        for data in ("table", "pairs"):
            film(folder / data / "images" / f"{name}.png", seed=i)
            film_label(folder / data / "labels" / f"{name}.png")
    lines = ["image,label,patient,class,split"]
    lines += [f"images/{n}.png,labels/{n}.png,p{i // 2},well,train" for i, n in enumerate("abcd")]
    (folder / "table" / "cases.csv").write_text("\n".join(lines) + "\n")
    write_json(folder / "pairs" / "classes.json", {"0": "background", "1": "tooth"})
    (folder / "pairs" / "patients.csv").write_text("image,patient\na,x\nb,x\nc,y\nd,z\n")
    dataset, _ = survey(folder / "pairs")
    plan = make_plan(dataset, PlanSettings(size=(16, 16)), labelled=True)
    (folder / "plan").mkdir()
    (folder / "plan" / "plan.json").write_text(plan.to_json())
    (folder / "splits").mkdir()
    split = Split(file=str(folder / "splits" / "splits.json"), test=0.34, validation=0.0)
    load_splits(dataset, split, folder)
    settings = to_dict(from_values("pretrain", {"data": "d", "out": "o", "steps": 3}))
    (folder / "settings").mkdir()
    (folder / "settings" / "s.yaml").write_text(yaml.safe_dump(settings))
    with start_run(folder / "run", "pretrain", settings) as run:
        pass
    unet = UNetConfig(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        width=8,
        multipliers=(1, 2),
        blocks=1,
        attention_factors=(2,),
        head_channels=8,
    )
    network = UNet(unet)
    network.initialize(torch.Generator().manual_seed(0))
    save_network(network, folder / "net")
    save_checkpoint(folder / "state", Checkpoint(3, {"network": {"w": torch.ones(40)}}, {"a": 1}))

    def opened(home: Path, file: str = "") -> None:
        found, _ = survey(home / file)
        for case in found:
            read_case_image(case)
            if case.label is not None or case.label_item is not None:
                read_case_label(case)

    def splits(home: Path) -> None:
        load_splits(dataset, Split(file=str(home / "splits.json")), folder)

    def recipe(home: Path) -> None:
        from_values("pretrain", {"config": home / "s.yaml", "data": "d", "out": "o"})

    return {
        "COCO JSON": Sample(folder / "coco", "annotations.json", opened),
        "table CSV": Sample(folder / "table", "cases.csv", lambda home: opened(home, "cases.csv")),
        "classes.json": Sample(folder / "pairs", "classes.json", opened),
        "patients.csv": Sample(folder / "pairs", "patients.csv", opened),
        "plan.json": Sample(
            folder / "plan", "plan.json", lambda home: read_plan(home / "plan.json")
        ),
        "splits.json": Sample(folder / "splits", "splits.json", splits),
        "settings YAML": Sample(folder / "settings", "s.yaml", recipe),
        "config.yaml": Sample(run.folder, "config.yaml", lambda home: Run.open(home).config),
        "model config.json": Sample(folder / "net", "config.json", load_network),
        "model safetensors": Sample(folder / "net", "model.safetensors", load_network),
        "checkpoint state.json": Sample(folder / "state", "step-00000003/state.json", load_newest),
        "checkpoint safetensors": Sample(
            folder / "state", "step-00000003/network.safetensors", load_newest
        ),
    }


def make_images(folder: Path) -> dict[str, Sample]:
    """Images of every format, and DICOM as series and with several frames."""
    from test_read_bad_input import make_samples

    folder.mkdir(parents=True, exist_ok=True)
    found = {
        name: Sample(path.parent, name, lambda home, name=name: read_everything(home / name))
        for name, path in make_samples(folder / "single").items()
    }
    volume = rng().integers(0, 4096, (4, 6, 5)).astype(np.uint16)
    write_series(folder / "series", volume)
    first = sorted(p.name for p in (folder / "series").iterdir())[1]
    found["DICOM series"] = Sample(folder / "series", first, _series)
    (folder / "frames").mkdir()
    save(dicom(volume, modality="US"), folder / "frames" / "many.dcm")
    found["DICOM frames"] = Sample(
        folder / "frames", "many.dcm", lambda home: read_everything(home / "many.dcm")
    )
    return found


def make_all(folder: Path) -> dict[str, Sample]:
    """Samples of every kind."""
    return make_images(folder / "images") | make_documents(folder / "documents")


def read_everything(path: Path) -> None:
    """All readers on one file, of which one must take it; a scan that comes out must be one."""
    failures = []
    for reader in (read_scan, read_label, inspect):
        try:
            result = reader(path)
        except InputError as error:
            failures.append(error)
            continue
        if isinstance(result, Scan):
            assert result.array.ndim in (3, 4)
            assert result.array.size
            assert np.isfinite(result.array).all()
    if len(failures) == 3:
        raise failures[0]


def _series(home: Path) -> None:
    found, _ = survey(home, Data(layout="dicom"))
    for case in found:
        scan = read_case_image(case)
        assert np.isfinite(scan.array).all()
    paths = sorted(home.iterdir())
    read_scan(home, series=paths)


def attempt(sample: Sample, folder: Path, chance: random.Random) -> tuple[str, str]:
    """Damage a copy of a sample and read it.

    Returns:
        ``refused in one line``, ``read``, or what is wrong; and details.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sample.folder, folder)
    path = folder / sample.file
    raw = path.read_bytes()
    hurt = damaged(raw, path.suffix, chance)
    path.write_bytes(hurt)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = ("read", "")
    try:
        sample.read(folder)
    except InputError as error:
        line = str(error)
        clear = "\n" not in line and len(line) < 3000
        outcome = ("refused in one line", "") if clear else ("no clear line", line[:500])
    except Exception as error:
        text = hurt[:3000].decode("latin-1") if path.suffix in TEXT else f"{len(hurt)} bytes"
        outcome = (f"{type(error).__name__}", f"{sample.file}: {error}: {text}")
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > MOST_GROWTH:
        outcome = ("takes memory", sample.file)
    return outcome


TEXT = {".json", ".yaml", ".csv"}
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**70, 1e308, float("nan"), "", "x", "x" * 5000, [], {}, [[]]),
    *([1, 2], [None], ["a", 3], {"a": {"b": []}}, "../../etc/passwd", "<script>alert(1)</script>"),
)


def damaged(raw: bytes, suffix: str, chance: random.Random) -> bytes:
    """Cut, bits turned over, bytes put in or repeated; in JSON and YAML also a value made another."""
    kind = chance.randrange(6 if suffix in (".json", ".yaml") else 4)
    data = bytearray(raw)
    if kind == 0:
        return bytes(data[: chance.randrange(len(data) + 1)])
    if kind in (1, 2):
        reach = len(data) if kind == 1 else min(len(data), 512)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(reach)] ^= 1 << chance.randrange(8)
        return bytes(data)
    if kind == 3:
        place = chance.randrange(len(data) + 1)
        piece = chance.choice(
            (b"\0" * 9, b"\xff\xfe", b",,\n", b'"', b"[" * 3000, bytes(data[:40]))
        )
        return bytes(data[:place] + piece + data[place:])
    load, dump = (json.loads, json.dumps) if suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    content = load(raw.decode())
    for _ in range(chance.randint(1, 2)):
        content = _swap(content, chance)
    return str(dump(content)).encode()


def _swap(content: Any, chance: random.Random) -> Any:
    """One value somewhere in it becomes another one, or goes."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = (
            node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        )
        for key in list(keys):
            places.append((node, key))
            walk(node[key])

    walk(content)
    if not places or chance.random() < 0.03:
        return chance.choice(ODD)
    node, key = chance.choice(places)
    if chance.random() < 0.2:
        del node[key]
    else:
        node[key] = json.loads(json.dumps(chance.choice(ODD)))
    return content
