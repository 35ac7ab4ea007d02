"""The table of organs, held against the lists that data sets carry themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from layout_files import SHARED, write_json

from radiffuse.data.class_names import (
    classes_of_set,
    known_sets,
    name_key,
    organ,
    read_classes,
)
from radiffuse.errors import InputError
from radiffuse.phantoms.abdomen import CLASSES

AMOS = ["background", "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver",
        "stomach", "arota", "postcava", "pancreas", "right adrenal gland", "left adrenal gland",
        "duodenum", "bladder", "prostate/uterus"]  # fmt: skip
"""As dataset.json of AMOS22 spells them."""
BTCV = ["background", "spleen", "rkid", "lkid", "gall", "eso", "liver", "sto", "aorta", "IVC", "veins",
        "pancreas", "rad", "lad"]  # fmt: skip
"""As the dataset.json that goes around with BTCV spells them."""


def test_every_set_numbers_its_organs_without_gaps() -> None:
    sizes = {name: len(classes_of_set(name)) - 1 for name in known_sets()}
    assert sizes == {
        "btcv": 13,
        "flare22": 13,
        "amos22": 15,
        "totalsegmentator": 117,
        "totalsegmentator-v1": 104,
        "abdomen": 13,
    }
    for name, size in sizes.items():
        assert sorted(classes_of_set(name)) == list(range(size + 1))


@pytest.mark.parametrize(("name", "own"), [("amos22", AMOS), ("btcv", BTCV), ("abdomen", CLASSES)])
def test_the_names_of_a_sets_own_files_are_understood(name: str, own: list[str]) -> None:
    assert dict(enumerate(organ(spelling) for spelling in own)) == classes_of_set(name)


def test_flare22_and_btcv_differ_in_one_organ() -> None:
    btcv, flare = (set(classes_of_set(name).values()) for name in ("btcv", "flare22"))
    assert btcv - flare == {"portal and splenic veins"}
    assert flare - btcv == {"duodenum"}
    assert classes_of_set("flare22")[13] == "left kidney"


def test_sides_are_not_confused() -> None:
    assert organ("kidney_left") == organ("Left Kidney") == "left kidney"
    assert organ("adrenal_gland_right") == organ("RAG") == "right adrenal gland"
    assert name_key("rib_left_1") != name_key("rib_left_10")
    assert organ("tumor") == "tumor"


def test_the_lists_of_totalsegmentator() -> None:
    path = SHARED / "ct-abdomen" / "labels.json"
    if not path.is_file():
        pytest.skip("shared/data/ct-abdomen is not beside the project")
    lists = json.loads(path.read_text())
    for title, name in (("v1, 104", "totalsegmentator-v1"), ("v2 total)", "totalsegmentator")):
        own = next(values for key, values in lists.items() if title in key)
        table = classes_of_set(name)
        assert {int(value) for value in own} == set(table) - {0}
        assert all(organ(spelling) == table[int(value)] for value, spelling in own.items())


def test_classes_come_from_a_file_or_a_folder(tmp_path: Path) -> None:
    plan = write_json(tmp_path / "run" / "plan.json", {"classes": ["background", "liver"]})
    write_json(tmp_path / "set" / "dataset.json", {"labels": {"background": 0, "cyst": 2}})
    assert (
        read_classes(str(plan)) == read_classes(str(plan.parent)) == {0: "background", 1: "liver"}
    )
    assert read_classes(str(tmp_path / "set"))[2] == "cyst"
    several = write_json(tmp_path / "labels.json", {"a": {"1": "liver"}, "b": {"1": "lung"}})
    with pytest.raises(InputError, match="holds 2 lists of classes"):
        read_classes(str(several))
    with pytest.raises(InputError, match="names no classes"):
        read_classes("btvc")
