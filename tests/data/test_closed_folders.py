"""A folder that this user may not look into is named as a fault, and the rest is checked."""

import errno
import os
from pathlib import Path

import pytest
from layout_files import film, pairs, volume, volume_label

from radiffuse.data.checking.check import check_path
from radiffuse.data.layouts import open_dataset
from radiffuse.errors import InputError


def close(folder: Path, monkeypatch: pytest.MonkeyPatch, *, listed: bool = False) -> Path:
    """Deny what the system would, also to root; ``listed``: names may be read, files may not."""

    def guarded(name: str) -> None:
        real = getattr(os, name)

        def call(path: str | Path = ".") -> object:
            if Path(path) == folder and not listed:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, name, call)

    guarded("scandir")
    guarded("listdir")
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and may(path, mode))
    return folder


def closed(root: Path) -> tuple[int, list[str]]:
    """How many cases are checked, and the folders that are named as closed."""
    result = check_path(root, workers=0)
    named = [i.where for i in result.issues if i.problem == "cannot be listed (Permission denied)"]
    return len(result.cases), named


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("place", ["b", "a/inner"])
def test_the_rest_of_a_folder_of_images_is_checked(
    place: str, listed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        film(tmp_path / "a" / f"{number}.png", seed=number)
    film(tmp_path / place / "9.png", seed=9)
    folder = close(tmp_path / place, monkeypatch, listed=listed)
    assert closed(tmp_path) == (3, [str(folder)])
    with pytest.raises(InputError, match="cannot be listed"):
        open_dataset(tmp_path)


def test_a_closed_folder_beside_images_and_labels_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs(tmp_path)
    (tmp_path / "more").mkdir()
    folder = close(tmp_path / "more", monkeypatch)
    assert closed(tmp_path) == (3, [str(folder)])


def test_a_closed_case_of_a_folder_per_case_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(("s1", "s2")):
        volume(tmp_path / name / "ct.nii.gz", seed=seed)
        volume_label(tmp_path / name / "segmentations" / "liver.nii.gz")
    folder = close(tmp_path / "s2", monkeypatch)
    assert closed(tmp_path) == (1, [str(folder)])


def test_a_data_set_that_is_closed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(tmp_path / "a.png")
    close(tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"cannot be listed .* Grant read access"):
        check_path(tmp_path, workers=0)
