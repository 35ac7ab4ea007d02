"""What made the masks of a folder: the record that is written with them, and that whoever reads them asks.

prediction.json   command and version; of every run the hashes of model and plan; settings; classes
masks.jsonl       a line per mask, of which the last counts: size, time and hash of the scan, and the hash of each file
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..data.cases import hash_of_files
from ..data.dataset import Case, Dataset
from ..data.names import composed
from ..data.readers import source_files
from ..data.scan import Scan
from ..errors import InputError
from ..system.files import PARTIAL, append_line, read_json, refuse_foreign, sha256, write_json
from ..train.members import members_of
from ..train.run import Run

FOLDER, MASKS = "prediction.json", "masks.jsonl"
ENDINGS = (".png", ".nii.gz", ".dcm")
"""Of masks."""
Entry = dict[str, Any]
"""A line of ``MASKS``: ``case``, ``scan``, ``trained`` and ``files``, hash by name by group, such as ``mask``."""
SHOWN = "shown"
"""In a line of ``predict``: the classes that the mask shows."""
GRAYED, NO_HU, UNSIZED = "grayed", "no_hu", "unsized"
DOUBTS = {
    GRAYED: (
        "images are",
        "the image is",
        "in color, and turned to gray (ITU-R BT.601): the run learned from gray images",
    ),
    NO_HU: (
        "images have",
        "the image has",
        "values that can hardly be HU, such as none below 0 (air is -1000): the run learned from CT in HU, and its "
        "masks of other values cannot be trusted",
    ),
    UNSIZED: (
        "images do",
        "the image does",
        "not say how large their voxels are, and each is taken for 1 mm: masks of voxels of another size cannot be "
        "trusted; write the sizes into the files",
    ),
}
"""In a line of ``predict``, true: an image is not as those that the run learned from. What is said of several, and of
one."""


@dataclass
class Record:
    """The record of a folder of masks.

    Attributes:
        folder: Of the masks.
        header: Content of ``prediction.json``.
        entries: By name of case.
        bad: Cases of this command that have no mask.
    """

    folder: Path
    header: dict[str, Any]
    entries: dict[str, Entry] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record of a folder, or None where it has none: its masks are of another program.

        Raises:
            InputError: It is damaged.
        """
        path = folder / FOLDER
        if not path.is_file():
            return None
        header = read_json(path)
        runs = header.get("runs") if isinstance(header, dict) else None
        if (
            not isinstance(runs, list)
            or not all(isinstance(run, dict) and {"run", "model", "plan"} <= run.keys() for run in runs)
            or not all(isinstance(header.get(key), dict) for key in ("settings", "classes"))
        ):  # fmt: skip
            raise InputError(
                path, "is no record of masks", "Restore it, or predict into a new folder"
            )
        record = cls(folder, header)
        lines, home = folder / MASKS, folder.resolve()
        for line in lines.read_bytes().splitlines() if lines.is_file() else ():
            if entry := _entry(line, home):
                record.entries[entry["case"]] = entry
        return record

    @classmethod
    def begin(cls, folder: Path, header: dict[str, Any]) -> Record:
        """The record to go on with, before anything is written; that of a command that made no mask binds nobody.

        Raises:
            InputError: The folder holds something else, or masks of another model or of other settings.
        """
        refuse_foreign(folder, FOLDER)
        record = cls.read(folder)
        if record is None or not (record.entries or _masks_in(folder)):
            return cls(folder, header)
        remedy = "Choose another --out, or remove the folder"
        before = record.header
        names, now = (", ".join(str(run["run"]) for run in h["runs"]) for h in (before, header))
        if [run["model"] for run in before["runs"]] != [run["model"] for run in header["runs"]]:
            again = " before it was trained again" if names == now else f", not of {now}"
            raise InputError(folder, f"holds masks of {names}{again}", remedy)
        if [run["plan"] for run in before["runs"]] != [run["plan"] for run in header["runs"]]:
            problem = f"holds masks that {names} made with another plan.json"
            raise InputError(folder, problem, remedy)
        for key, value in {"command": header["command"], **header["settings"]}.items():
            old = {"command": before.get("command"), **before["settings"]}.get(key)
            if old != value:
                raise InputError(folder, f"holds masks with {key} = {old}, not {value}", remedy)
        return record

    def files(self, case: str) -> dict[str, str]:
        """Hash by name of all files of a case."""
        groups = self.entries.get(case, {}).get("files", {}).values()
        return {name: value for group in groups for name, value in group.items()}

    def altered(self, path: Path, case: str) -> bool:
        """Whether a file of a case is not what was recorded."""
        name = composed(path.relative_to(self.folder).as_posix())
        return self.files(case).get(name) != sha256(path)

    def verify_scan(self, case: Case, image: Scan) -> None:
        """Refuse a case whose recorded mask was made from another scan, by its files and by its voxels.

        Raises:
            InputError: It was.
        """
        entry = self.entries.get(case.name)
        if entry is None or same_scan(entry["scan"], case):
            return
        if entry["scan"].get("voxels") != hash_of_voxels(image):
            where = self.folder / next(iter(self.files(case.name)), case.name)
            problem = f"was made from another scan than {case.images[0]} is now"
            raise InputError(where, problem, "Predict it again")

    def classes(self) -> dict[int, str]:
        """Names by label value.

        Raises:
            InputError: ``classes.json`` beside the masks names others.
        """
        path, own = self.folder / "classes.json", self.header["classes"]
        if path.is_file() and read_json(path) != own:
            remedy = "Restore it, or say what the values mean with --prediction-classes"
            raise InputError(path, f"names other classes than {FOLDER}", remedy)
        return {int(value): str(name) for value, name in own.items() if str(value).isdecimal()}

    @property
    def models(self) -> str:
        """The start of the hash of every model."""
        return short(self.header["runs"])

    def described(self) -> list[str]:
        """What made the masks, for people: each run with the start of its hash, and the settings."""
        runs = [f"{run['run']} (model {short([run])})" for run in self.header["runs"]]
        return [*runs, ", ".join(f"{k} {v}" for k, v in self.header["settings"].items() if v)]

    def refuse_altered(self, dataset: Dataset) -> None:
        """Refuse to go on where someone else wrote or changed the mask of a case, whose work would be lost.

        Raises:
            InputError: Names the file.
        """
        for case in dataset:
            names = {*self.files(case.name), *(f"{case.name}{ending}" for ending in ENDINGS)}
            for path in (self.folder / name for name in sorted(names)):
                if path.is_file() and self.altered(path, case.name):
                    remedy = "Move it elsewhere, to have it made again, or choose another --out"
                    raise InputError(path, "is not as radiffuse wrote it", remedy)

    def write_header(self) -> None:
        """Write ``prediction.json`` and ``classes.json``."""
        write_json(self.folder / FOLDER, self.header)
        write_json(self.folder / "classes.json", self.header["classes"])

    def publish(self, entry: Entry) -> None:
        """Record a case, then give its finished files their names, the mask last: what is there has its line.

        Raises:
            InputError: The disk is full.
        """
        part = partial_folder(self.folder, entry["case"])
        new = [
            name for group in entry["files"].values() for name in group if (part / name).is_file()
        ]
        for name in new:
            (self.folder / name).unlink(missing_ok=True)
        append_line(self.folder / MASKS, json.dumps(entry))
        for name in reversed(new):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part / name, self.folder / name)
        shutil.rmtree(part, ignore_errors=True)
        self.entries[entry["case"]] = entry


def never_shown(entries: Sequence[Entry], classes: Sequence[str]) -> list[str]:
    """Foreground classes that none of several masks shows; [] where a line does not say what its mask shows."""
    if len(entries) < 2 or not all(SHOWN in entry for entry in entries):
        return []
    shown = {name for entry in entries for name in entry[SHOWN]}
    return [name for name in classes[1:] if name not in shown]


def doubts(entries: Sequence[Entry]) -> list[str]:
    """How many of the images are doubtful, and why, in words."""
    found = [doubt for entry in entries for doubt in DOUBTS if entry.get(doubt)]
    return doubts_in_words(found, len(entries))


def doubts_in_words(found: Sequence[str], total: int) -> list[str]:
    """How many images of so many are not as those that the run learned from, by what is doubtful in them.

    ``found`` has a name of ``DOUBTS`` for each time that it was met.
    """
    return [
        f"{f'{found.count(doubt)} of {total} {several}' if total > 1 else one} {what}"
        for doubt, (several, one, what) in DOUBTS.items()
        if doubt in found
    ]


def header(
    command: str,
    runs: Iterable[tuple[str, Mapping[str, str]]],
    settings: Mapping[str, Any],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Content of ``prediction.json``; ``runs`` are folders with their identities."""
    from .. import __version__

    return {
        "radiffuse": __version__,
        "command": command,
        "runs": [{"run": folder, **identity} for folder, identity in runs],
        "settings": dict(settings),
        "classes": {str(i): name for i, name in enumerate(classes)},
    }


def identity(run: Run) -> dict[str, str]:
    """Hashes of a run's model, with how it samples, and of its plan."""
    digest = hashlib.sha256()
    for part in members_of(run):
        if part is not run:
            digest.update(json.dumps(identity(part), sort_keys=True).encode())
    for path in sorted(run.model.rglob("*")):
        if path.is_file() and path.name not in ("raw.safetensors", "SHA256SUMS"):
            digest.update(f"{sha256(path)}  {path.relative_to(run.model).as_posix()}\n".encode())
    given = run.config["settings"]
    drawing = given.get("joint") or given.get("diffusion")
    digest.update(json.dumps(drawing, sort_keys=True).encode())
    return {"model": digest.hexdigest(), "plan": run.plan.digest}


def short(identities: Iterable[Mapping[str, str]]) -> str:
    """The start of the hash of every model, joined."""
    return "+".join(str(run["model"])[:16] for run in identities)


def scan_of(case: Case) -> dict[str, Any]:
    """Number, size and newest time of the files of a scan, and a hash of what the disk says of each."""
    files = [file for path in case.images for file in source_files(path, case.series)]
    states = [(file.name, file.stat()) for file in files]
    listed = [(n, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for n, s in states]
    newest = datetime.datetime.fromtimestamp(max(s.st_mtime for _, s in states), datetime.UTC)
    return {
        "files": len(files),
        "size": sum(s.st_size for _, s in states),
        "time": newest.isoformat(timespec="seconds"),
        "state": hashlib.sha256(repr(sorted(listed)).encode()).hexdigest()[:16],
    }


def hash_of_voxels(scan: Scan) -> str:
    """Hash of a scan's values and place, whatever file they came from."""
    affine = None if scan.affine is None else np.round(scan.affine, 4).tolist()
    digest = hashlib.sha256(repr((scan.array.dtype.str, scan.array.shape, affine)).encode())
    for plane in np.moveaxis(scan.array, -1, 0):  # a copy of the whole would double the memory
        digest.update(plane.tobytes())
    return digest.hexdigest()


def same_scan(before: Mapping[str, Any], case: Case, now: Mapping[str, Any] | None = None) -> bool:
    """Whether a recorded scan is still that of a case: files that the disk calls untouched, else the same content.

    ``now`` is what ``scan_of`` says of the case; None: ask it.
    """
    now = now or scan_of(case)
    if now["state"] == before.get("state"):
        return True
    return now["size"] == before.get("size") and hash_of_files(case) == before.get("sha256")


def partial_folder(out: Path, case: str) -> Path:
    """Where the files of a case lie until they are recorded."""
    return out / f".{case}{PARTIAL}"


def _masks_in(folder: Path) -> bool:
    """Whether any file is a mask, recorded or not."""
    return any(path.name.endswith(ENDINGS) for path in folder.rglob("*"))


def _entry(line: bytes, home: Path) -> Entry | None:
    """A line of ``MASKS``; None where a kill cut it short, or it names what does not lie in the folder ``home``."""
    try:
        entry = json.loads(line)
        files = {name: value for group in entry["files"].values() for name, value in group.items()}
        good = isinstance(entry["case"], str) and isinstance(entry["scan"], dict)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    inside = all(_inside(name, home) and isinstance(value, str) for name, value in files.items())
    return entry if good and inside else None


def _inside(name: str, home: Path) -> bool:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\0" in name:
        return False
    return (home / name).parent.resolve().is_relative_to(home)
