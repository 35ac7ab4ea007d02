"""Corrections made on the page: kept in one folder, beside a copy of the scan, where nothing is ever overwritten."""

from __future__ import annotations

import datetime
import getpass
import hashlib
import json
import shutil
import threading
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ..config import IGNORE
from ..data.cases import hash_of_files, read_case_image
from ..data.class_names import read_classes
from ..data.dataset import Case
from ..data.layouts.corrections import (
    FILE,
    RENAMED,
    Entry,
    entries,
    renamed_in,
    under_new_names,
)
from ..data.layouts.listing import image_suffix
from ..data.names import safe_name
from ..data.readers import label_suffix, read_label, write_image, write_label
from ..data.scan import Array, Scan, geometry_difference
from ..errors import InputError
from ..inference.records import same_scan, scan_of
from ..system.files import (
    append_line,
    end_last_line,
    locked,
    make_folder,
    refuse_foreign,
    sha256,
    whole,
    write_json,
)
from .refusal import Refused
from .scans import MASK, Item, Layer, Scans
from .uploads import TWO_FILES

LAYER = "correction"
"""Id of the layer with what was saved."""
MOST_CLASSES, LONGEST = 64, 100
"""Classes of a correction, and characters of a name."""
DEFAULT = "corrections"
"""The folder, below the one where the command was started."""


class Corrections:
    """The corrections of one folder.

    Args:
        folder: Where to; it is made when something is saved.

    Raises:
        InputError: The record in the folder is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()
        self.entries = entries(self.folder)
        self.renamed = renamed_in(self.folder)
        self._lock = threading.Lock()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label value; () where nothing was saved yet.

        Raises:
            InputError: ``classes.json`` is damaged.
        """
        if not (self.folder / "classes.json").is_file():
            return ()
        return tuple(read_classes(str(self.folder)).values())

    def named(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Names of classes of anything on the page, with those that were renamed here under their new names."""
        own = self.classes
        # Where they are the new ones already, one of them may be an old one too.
        if all(name == new for name, new in zip(classes, own, strict=False)):
            return tuple(classes)
        return under_new_names(classes, self.renamed)

    def refuse_foreign(self) -> None:
        """Refuse a folder that holds something else.

        Raises:
            InputError: It does.
        """
        refuse_foreign(self.folder, FILE, flag="--corrections")

    def attach(self, scans: Scans, items: Sequence[Item]) -> None:
        """Put what was saved for scans on them."""
        for item in items:
            entry = self.entries.get(item.name)
            if entry is not None and same_scan(entry["scan"], item.case):
                item.corrected = self._number(entry)
                path = self.folder / entry["label"]
                scans.attach(item, Layer(LAYER, LAYER, MASK, partial(_read, path), self.classes))

    def rename(
        self, scans: Scans, classes: Sequence[str], value: int, name: str
    ) -> tuple[str, ...]:
        """Give a class another name, here and in all that the page shows; returns the names.

        Args:
            scans: Of the page.
            classes: Names by label value, background first, as the page has them.
            value: Of the class.
            name: Its new name.

        Raises:
            Refused: There is no such class, or the name is empty, or that of another class (400), or the folder has
                other classes (409).
            InputError: The folder holds something else, or the disk refuses.
        """
        names = self.named(classes)
        if not 0 < value < len(names):
            raise Refused(400, "Choose the class to rename.")
        before = names[value]
        named = verified([*names[:value], name, *names[value + 1 :]])
        with self._lock:
            self._refuse_classes(names)
            self.refuse_foreign()
            make_folder(self.folder)
            with locked(self.folder):
                (self.folder / FILE).touch()
                # What was renamed before has one new name: the last.
                known = renamed_in(self.folder)
                last = {old: named[value] for old, new in known.items() if new == before}
                changed = known | (last or {before: named[value]})
                changed = {old: new for old, new in changed.items() if old != new}
                write_json(self.folder / RENAMED, changed)
                self._write_classes(named)
                self.renamed = changed
        for item in scans.all():
            if layer := item.layers.get(LAYER):
                scans.attach(item, replace(layer, classes=self.classes))
        return named

    def save(
        self,
        scans: Scans,
        item: Item,
        packed: bytes,
        start: Layer | None,
        classes: Sequence[str],
        before: int,
    ) -> None:
        """Save a mask beside a copy of its scan; earlier ones stay.

        Args:
            scans: Of the page.
            item: Whose mask.
            packed: Its labels as uint8 in the order of the scan's array, deflated (zlib).
            start: What was corrected.
            classes: Names by label value, background first.
            before: How many corrections of the scan the page knew of.

        Raises:
            Refused: The mask does not fit scan or classes (400), or somebody saved meanwhile, or the folder has other
                classes or another scan of this name (409).
            InputError: The disk refuses.
        """
        scan = scans.scan(item)
        mask = unpacked(packed, scan.spatial_shape, len(classes))
        named = verified(self.named(classes))
        with self._lock:
            self.refuse_foreign()
            make_folder(self.folder)
            with locked(self.folder):
                (self.folder / FILE).touch()  # shows whose folder this is
                self.entries = entries(self.folder)  # another server may have saved
                entry = self.entries.get(item.name)
                self._verify(item, entry, named, before)
                home = self.folder / item.name
                make_folder(home)
                case = self._copied(item, entry, home, scan)
                number = before + 1
                while (path := home / f"label-{number}{label_suffix(scan)}").exists():
                    number += 1
                write_label(path, mask, scan)
                if named != self.classes:
                    self._write_classes(named)
                made = self._entry(item, case, path, mask, start, scans)
                end_last_line(self.folder / FILE)
                append_line(self.folder / FILE, json.dumps(made, ensure_ascii=False))
                self.entries[item.name] = made
        self.attach(scans, [item])

    def _verify(
        self, item: Item, entry: Entry | None, classes: tuple[str, ...], before: int
    ) -> None:
        if entry is not None and not same_scan(entry["scan"], item.case):
            raise Refused(409, f"{self.folder.name} has a correction of another scan called {item.name}; "
                          "choose another --corrections.")  # fmt: skip
        if before != (self._number(entry) if entry else 0):
            raise Refused(
                409,
                "This scan was corrected meanwhile, in another window; open it again to see how.",
            )
        self._refuse_classes(classes)

    def _write_classes(self, classes: Sequence[str]) -> None:
        names = {str(value): name for value, name in enumerate(classes)}
        write_json(self.folder / "classes.json", names)

    def _refuse_classes(self, classes: Sequence[str]) -> None:
        own = self.classes
        if own != tuple(classes[: len(own)]):
            raise Refused(409, f"{self.folder.name} has the classes {', '.join(own)}, not {', '.join(classes)}; "
                          "choose another --corrections.")  # fmt: skip

    def _copied(self, item: Item, entry: Entry | None, home: Path, scan: Scan) -> Case:
        """The scan in the folder, which is copied at first; it is the one that is shown."""
        if entry is not None:
            series = tuple(self.folder / name for name in entry["series"])
            images = tuple(self.folder / name for name in entry["images"])
            return Case(item.name, images, series=series, file_channels=entry["file_channels"])
        case = _copy(item.case, home, item.channels, scan)
        again = read_case_image(case)
        if geometry_difference(again, scan) or not np.array_equal(again.array, scan.array):
            raise Refused(409, "The scan on the disk is not the one that is shown; open it again.")
        return case

    def _entry(
        self, item: Item, case: Case, label: Path, mask: Array, start: Layer | None, scans: Scans
    ) -> Entry:
        from .. import __version__

        origin, changed = None, int(np.count_nonzero(mask))
        if start is not None:
            before = scans.array(item, start)[-1]
            changed = int(np.count_nonzero(before != mask))
            voxels = hashlib.sha256(np.ascontiguousarray(before).data).hexdigest()
            origin = {
                "name": start.name,
                "kind": start.kind,
                "model": start.model,
                "voxels": voxels,
            }
        below = [
            [p.relative_to(self.folder).as_posix() for p in g] for g in (case.images, case.series)
        ]
        return Entry(
            radiffuse=__version__, state="corrected", case=item.name,
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), by=_user(),
            start=origin, changed=changed,
            scan=scan_of(item.case) | {"sha256": hash_of_files(item.case)}, patient=item.patient,
            channels=list(item.channels), file_channels=case.file_channels, images=below[0], series=below[1],
            label=label.relative_to(self.folder).as_posix(), sha256=sha256(label),
        )  # fmt: skip

    def _number(self, entry: Entry) -> int:
        """Of a label file: how many were saved, with it."""
        text = Path(entry["label"]).name.removeprefix("label-").partition(".")[0]
        return int(text) if text.isdecimal() and text.isascii() else 1


def verified(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of classes as they may be written.

    Raises:
        Refused: There is none besides the background, one twice, or one that is no short line of text.
    """
    names = tuple(name.strip() for name in classes)
    good = all(0 < len(name) <= LONGEST and name.isprintable() for name in names)
    if not (good and 2 <= len(names) <= MOST_CLASSES and len(set(names)) == len(names)):
        text = f"Classes have different names of up to {LONGEST} characters; 2 to {MOST_CLASSES} of them."
        raise Refused(400, text)
    return names


def unpacked(packed: bytes, shape: tuple[int, ...], classes: int) -> Array:
    """The labels of a mask; no more is inflated than the scan has voxels.

    Raises:
        Refused: Damaged, of another size, or with a label beyond the classes (400).
    """
    size, inflate = int(np.prod(shape)), zlib.decompressobj()
    try:
        content = inflate.decompress(packed, size + 1)
    except zlib.error:
        raise Refused(400, "The mask did not arrive whole; save it again.") from None
    if len(content) != size or not inflate.eof or inflate.unused_data:
        raise Refused(400, "The mask has another size than the scan.")
    mask = np.frombuffer(content, np.uint8).reshape(shape)
    if (found := int(mask.max(where=mask != IGNORE, initial=0))) >= classes:
        raise Refused(400, f"The mask holds label {found}, and there are {classes} classes.")
    return mask


def most_bytes(scan: Scan) -> int:
    """Longest packed mask of a scan: zlib adds little to what it cannot compress."""
    size = int(np.prod(scan.spatial_shape))
    return size + size // 500 + 1024


# ------------------------------------------------------------------------------------------------ internal


def _copy(case: Case, home: Path, channels: Sequence[str], scan: Scan) -> Case:
    """Copies of a scan's files, as ``scan``, ``scan-CHANNEL`` or a folder ``scan`` of a DICOM series."""
    if case.series:
        folder = home / "scan"
        make_folder(folder)
        files = [folder / f"{i:06d}.dcm" for i in range(1, len(case.series) + 1)]
        for source, target in zip(case.series, files, strict=True):
            _copy_file(source, target)
        return Case(case.name, (folder,), series=tuple(files))
    images = []
    for i, source in enumerate(case.images):
        several = len(case.images) > 1
        name = (
            f"scan-{safe_name(channels[i]) if i < len(channels) else i + 1}" if several else "scan"
        )
        suffix = image_suffix(source.name) or ".dcm"
        if suffix in TWO_FILES:  # the pixels lie in a file of another name
            target = home / f"{name}.nii.gz"
            write_image(target, scan.array[i if several else 0], scan)
        else:
            target = home / f"{name}{suffix}"
            _copy_file(source, target)
        images.append(target)
    return Case(case.name, tuple(images), file_channels=case.file_channels)


def _copy_file(source: Path, target: Path) -> None:
    try:
        with source.open("rb") as file, whole(target) as copy:
            shutil.copyfileobj(file, copy, 2**20)
    except OSError as error:
        raise InputError(source, f"cannot be read ({error.strerror})", "Restore the scan") from None


def _read(path: Path) -> Array:
    return read_label(path).array.astype(np.uint8)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        return ""
