"""The splits files of folds: what is not learned from is held out, and no patient is parted."""

from __future__ import annotations

from pathlib import Path

from radiffuse.automatic.labels import Labels
from radiffuse.config import Split
from radiffuse.data.dataset import Case, Dataset
from radiffuse.data.splits import Splits, load_splits


def test_what_is_not_learned_from_is_in_no_part_and_the_test_stays_the_test(tmp_path: Path) -> None:
    owners = {"a": "p", "b": "p", "c": "q", "d": "q", "e": "r", "f": "r", "g": "s"}
    cases = tuple(Case(n, (Path(n),), Path("l"), group=group) for n, group in owners.items())
    data = Dataset(Path("d"), "pairs", cases)
    labels = Labels(data, Splits(("a", "b", "c", "d", "g"), (), ("e", "f")), ("a", "c"))
    labels.write_split(tmp_path / "fold.json", ("a",), ("c",))
    chosen = Split(file=str(tmp_path / "fold.json"))
    found = load_splits(data, chosen, tmp_path, write=False)
    assert (found.train, found.validation, found.test) == (("a",), ("c",), ("e", "f"))
    assert found.held_patients(data) == {"q", "r"}
