"""Files dropped on the page: received up to a limit, known by their content, unpacked with suspicion.

A name that comes with a file is only ever shown. On disk the file has a folder of its own, under a name made safe;
members of a zip file are numbered. The folder belongs to this user alone and goes when the server ends.
"""

from __future__ import annotations

import shutil
import struct
import threading
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_ISLNK
from typing import IO

from ..config import Data
from ..data.dataset import Case
from ..data.layouts import survey
from ..data.layouts.listing import image_suffix
from ..data.names import safe_name
from ..data.readers.formats import detect
from ..errors import InputError
from ..system.hardware import folder_size, free_disk
from .refusal import Refused

MAX_MEMBERS = 20_000
"""Most files in a zip file: more than any series has slices."""
MAX_DIRECTORY = 8 * 2**20
"""Longest list of members of a zip file, in bytes; it is read into memory whole."""
CHUNK = 2**20
TWO_FILES = (".mhd", ".nhdr")
"""Headers whose pixels lie in another file, which they name: not taken from the page."""
TYPES = "PNG, JPEG, TIFF, DICOM, NIfTI, MetaImage (.mha), NRRD, or a zip file of one DICOM study"


class Intake:
    """Receives files into a folder.

    Args:
        folder: Where to; must exist.
        limit: Bytes of one file, and of the content of one zip file. All together may hold four times as much.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._count = 0
        self._lock = threading.Lock()
        self._claims: dict[Path, int] = {}

    async def receive(self, name: str, chunks: AsyncIterator[bytes], announced: int | None) -> Path:
        """Write a file as it comes in.

        Args:
            name: As the browser says; any text.
            chunks: Its content.
            announced: Its length as the browser says, or None.

        Raises:
            Refused: Too large (413), or no room left (507); nothing of it stays.
        """
        if announced is not None and announced > self.limit:
            raise self._too_large()
        self._count += 1
        home = self.folder / f"{self._count:05d}"
        path, size = home / shown_name(name), 0
        with self._claimed(home, announced) as room:
            home.mkdir(mode=0o700)
            try:
                with path.open("xb") as file:
                    async for chunk in chunks:
                        size += len(chunk)
                        if size > self.limit:
                            raise self._too_large()
                        if size > room:
                            raise _no_room() if announced is None else _not_whole()
                        file.write(chunk)
                if announced is not None and size != announced:
                    raise _not_whole()
            except BaseException:  # also when the browser goes away
                shutil.rmtree(home, ignore_errors=True)
                raise
        return path

    def cases(self, path: Path) -> tuple[Case, ...]:
        """The scans in a received file: one, or the series of a zip file. A refused file is removed.

        Raises:
            Refused: It is of no known type (415).
            InputError: It is of a known type and cannot be used.
        """
        try:
            return self._cases(path)
        except BaseException:
            self.remove(path)
            raise

    def remove(self, path: Path) -> None:
        """Delete a received file and all that was unpacked from it."""
        home = next(p for p in (path, *path.parents) if p.parent == self.folder)
        shutil.rmtree(home, ignore_errors=True)

    def _cases(self, path: Path) -> tuple[Case, ...]:
        if path.stat().st_size == 0:
            raise Refused(415, "The file is empty.")
        with path.open("rb") as file:
            zipped = file.read(4) in (b"PK\3\4", b"PK\5\6")
        if zipped:
            series = path.parent / "series"
            with self._claimed(series) as room:
                try:
                    unpack_dicom(path, series, room)
                except Refused as error:
                    if error.status == 413 and room < self.limit:
                        raise _no_room() from None
                    raise
            path.unlink()
            dataset, _ = survey(series, Data(layout="dicom", skip_bad=True))
            return dataset.cases
        if path.name.lower().endswith(TWO_FILES):
            raise Refused(
                415, "The pixels of this header lie in another file; save it as one file (.mha)."
            )
        try:
            detect(path)
        except InputError as error:
            raise Refused(415, f"The file {error.problem}. What can be dropped: {TYPES}.") from None
        dataset, _ = survey(path, Data())
        return dataset.cases

    @contextmanager
    def _claimed(self, folder: Path, size: int | None = None) -> Iterator[int]:
        """Bytes that may be written into a folder within the block: of no others that are written at the same time.

        ``size`` is what is asked for; None: what is left, but no more than the limit.

        Raises:
            Refused: So much is not left (507).
        """
        with self._lock:
            # what others have claimed and not written yet
            pending = sum(self._claims.values()) - sum(map(folder_size, self._claims))
            free = free_disk(self.folder) - self.limit
            room = min(4 * self.limit - folder_size(self.folder), free) - pending
            claim = min(self.limit, room) if size is None else size
            if claim > room or claim < 0:
                raise _no_room()
            self._claims[folder] = claim
        try:
            yield claim
        finally:
            with self._lock:
                del self._claims[folder]

    def _too_large(self) -> Refused:
        return Refused(413, f"The file is larger than {self.limit / 1e6:,.0f} MB (--upload-limit).")


def _no_room() -> Refused:
    return Refused(507, "No room is left for dropped files; remove some, or free the disk.")


def _not_whole() -> Refused:
    return Refused(400, "The file did not arrive whole; drop it again.")


def shown_name(name: str) -> str:
    """A file name close to what the browser said, cut where it is long; the suffix of a known format stays."""
    last = PureWindowsPath(name).name
    suffix = image_suffix(last)
    stem = last[: len(last) - len(suffix)]
    return safe_name(stem[:60] or "file") + suffix.lower()


def unpack_dicom(archive: Path, folder: Path, limit: int) -> int:
    """Write the DICOM files of a zip file as ``000001.dcm``, ...; other files are passed over.

    Args:
        archive: The zip file.
        folder: Made here.
        limit: Bytes that may be inflated, of all members together, passed over or not.

    Returns:
        Number of files written.

    Raises:
        Refused: A member climbs out, is a link, encrypted or oddly compressed; too many; too large (413); none is
            DICOM.
        InputError: The zip file is damaged.
    """
    with archive.open("rb") as file:
        _check_directory(file)
    count, total = 0, 0
    folder.mkdir(mode=0o700)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if len(members) > MAX_MEMBERS:
                raise Refused(415, f"The zip file holds more than {MAX_MEMBERS:,} files.")
            for member in members:
                _check_member(member)
            for member in members:
                if member.is_dir():
                    continue
                with opened.open(member) as source:
                    head = source.read(132)
                    total += len(head)
                    if head[128:] != b"DICM" or _is_directory_file(member):
                        continue
                    count += 1
                    total = _copy(source, head, folder / f"{count:06d}.dcm", total, limit)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError) as error:
        raise InputError(
            archive.name, f"is a damaged zip file ({error})", "Make it again"
        ) from None
    if not count:
        raise Refused(415, "The zip file holds no DICOM file.")
    return count


def _copy(source: IO[bytes], head: bytes, path: Path, total: int, limit: int) -> int:
    """Inflate a member in pieces; what counts is what comes out, whatever the header says."""
    with path.open("xb") as file:
        file.write(head)
        while chunk := source.read(CHUNK):
            total += len(chunk)
            if total > limit:
                raise Refused(
                    413,
                    f"The content of the zip file is larger than {limit / 1e6:,.0f} MB "
                    "(--upload-limit).",
                )
            file.write(chunk)
    return total


def _check_directory(file: IO[bytes]) -> None:
    """Refuse a list of members too long to be read into memory, and zip64, which no series needs."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_557))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise InputError(
            "the zip file", "is damaged: it has no list of its members", "Make it again"
        )
    if tail[max(0, at - 20) : at].startswith(b"PK\6\7"):
        raise Refused(415, "The zip file is in the format zip64; make one of at most 4 GB.")
    (length,) = struct.unpack_from("<I", tail, at + 12)
    if length > MAX_DIRECTORY:
        raise Refused(415, f"The zip file holds more than {MAX_MEMBERS:,} files.")


def _check_member(member: zipfile.ZipInfo) -> None:
    """Refuse a member that could only be there to do harm. Its name is never used on disk."""
    name = member.orig_filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or PureWindowsPath(name).drive or "\0" in name:
        raise Refused(415, "The zip file holds a name that leads out of its folder.")
    if S_ISLNK(member.external_attr >> 16):
        raise Refused(415, "The zip file holds a link.")
    if member.flag_bits & 1:
        raise Refused(415, "The zip file is encrypted.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(415, "The zip file is compressed in an unusual way; use plain zip.")


def _is_directory_file(member: zipfile.ZipInfo) -> bool:
    """A DICOMDIR lists a study; it has no pixels."""
    return PurePosixPath(member.filename).name.upper() == "DICOMDIR"
