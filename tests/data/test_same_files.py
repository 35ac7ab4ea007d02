"""Which image is a known one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from radiffuse.data.cases import hash_of_files
from radiffuse.data.copies import finder
from radiffuse.data.dataset import Case, Dataset
from radiffuse.inference.selection import without_labelled
from radiffuse.synthesis.volume_segmenter import refuse_own_names


def case(path: Path, content: bytes | None = None) -> Case:
    if content is not None:
        path.write_bytes(content)
    return Case(path.stem, (path,))


def header(path: Path) -> Case:
    """A volume of which the file of voxels is gone."""
    text = "ObjectType = Image\nNDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\n"
    return case(path, f"{text}ElementDataFile = gone.raw\n".encode())


def test_a_copy_is_found_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    known = [case(tmp_path / f"{name}.png", name.encode()) for name in ("ab", "cd", "efg")]
    find = finder(known)
    assert [find(one) for one in known] == known
    shutil.copy(tmp_path / "cd.png", tmp_path / "x.png")
    assert find(case(tmp_path / "x.png")) == known[1]
    assert find(case(tmp_path / "y.png", b"ac")) is None  # of the size of two
    assert find(case(tmp_path / "z.png", b"long")) is None
    shutil.move(tmp_path / "ab.png", tmp_path / "moved.png")
    assert find(known[0]) == known[0]  # the same place, read or not


def test_channels_that_changed_places_are_another_scan(tmp_path: Path) -> None:
    """As where t1 and t2 were swapped and then put right; the files of a series have no order."""
    for name in "ab":
        case(tmp_path / f"{name}.png", name.encode())
    both = tmp_path / "a.png", tmp_path / "b.png"
    assert hash_of_files(Case("x", both)) != hash_of_files(Case("x", both[::-1]))
    assert finder([Case("x", both)])(Case("y", both[::-1])) is None
    one, other = (Case("x", (tmp_path,), series=files) for files in (both, both[::-1]))
    assert hash_of_files(one) == hash_of_files(other)


def test_what_cannot_be_read_is_no_copy_and_stops_nobody(tmp_path: Path) -> None:
    """A pool, labelled scans and scans that give names: each may hold such a file, which is named where it is used."""
    (tmp_path / "there").mkdir()
    here, there = header(tmp_path / "a.mhd"), header(tmp_path / "there" / "b.mhd")
    gone, film = case(tmp_path / "gone.png"), case(tmp_path / "film.png", b"film")
    assert finder([here, gone])(there) is None
    assert finder([here, gone, film])(case(tmp_path / "copy.png", b"film")) == film
    pool = Dataset(tmp_path, "images", (here, gone, film))
    left, _ = without_labelled(pool, [there, case(tmp_path / "other.png", b"other")])
    assert left.cases == pool.cases
    refuse_own_names(pool, Dataset(tmp_path / "there", "images", (there,)))


@pytest.mark.parametrize("place", [0, 5_000, 9_999])
def test_at_a_glance_start_middle_and_end_are_compared(place: int, tmp_path: Path) -> None:
    content = bytes(10_000)
    find = finder([case(tmp_path / "a.nii", content)], glance=True)
    assert find(case(tmp_path / "same.nii", content))
    assert not find(
        case(tmp_path / "b.nii", content[:place] + b"x" + content[place + 1 :]),
    )
    assert not find(case(tmp_path / "gone.nii"))
