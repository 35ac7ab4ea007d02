"""How many pieces a structure has: counted, agreed upon by patients, and kept by the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radiffuse.config import PlanSettings
from radiffuse.data.components import constant_pieces, island_size, pieces_of
from radiffuse.data.dataset import Case
from radiffuse.data.fingerprint import take_fingerprint
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan, _kept_pieces, make_plan
from radiffuse.train.labelled import _corrected
from radiffuse.train.planning.plan_text import rows

ONE, TWO = 1, 2


def write(folder: Path, name: str, *squares: tuple[int, int, int]) -> None:
    """A film, and its label map with squares of 4 pixels (value, row, column)."""
    label = np.zeros((32, 32), np.uint8)
    for value, row, column in squares:
        label[row : row + 4, column : column + 4] = value
    for part, array in (("images", 50 + 50 * label), ("labels", label)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array.astype(np.uint8)).save(folder / part / f"{name}.png")


def planned(folder: Path, **given: object) -> Plan:
    settings = PlanSettings(size=(32,), **given)  # type: ignore[arg-type]
    return make_plan(open_dataset(folder), settings, labelled=True)


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    mask = np.zeros((3, 4, 5), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True  # touch at a corner
    mask[2, 3, 3:5] = True
    pieces, sizes = pieces_of(mask)
    assert sizes.tolist() == [2, 2]
    assert pieces[0, 0, 0] == pieces[1, 1, 1] != pieces[2, 3, 3]


@pytest.mark.parametrize(
    ("counts", "patients", "found"),
    [([2, 2, 2], 3, 2), ([2, 2, 2], 2, None), ([2, 2, 1], 3, None), ([1] * 9, 9, 1), ([], 0, None)],
)
def test_label_maps_of_three_patients_have_to_agree(
    counts: list[int], patients: int, found: int | None
) -> None:
    assert constant_pieces(counts, patients) == found


def test_the_plan_keeps_as_many_pieces_as_all_label_maps_have(tmp_path: Path) -> None:
    """Two lungs in all four films, of which one has no lesion and the others one or two."""
    lungs = ((ONE, 2, 2), (ONE, 2, 20))
    write(tmp_path, "p1", *lungs, (TWO, 10, 10))
    write(tmp_path, "p2", *lungs, (TWO, 10, 10), (TWO, 20, 20))
    write(tmp_path, "p3", *lungs, (TWO, 10, 20))
    write(tmp_path, "p4", *lungs)
    plan = planned(tmp_path)
    assert plan.postprocess == ("1=keep:2",)
    named = {name: (value, why) for name, value, why in rows(plan)}
    assert named["after segmentation"][0] == "class-1: the 2 largest pieces are kept"
    assert "class-1" in named["after segmentation"][1]
    assert planned(tmp_path, postprocess=("none",)).postprocess == ("none",)
    assert planned(tmp_path, postprocess=("fill",)).postprocess == ("fill",)


def test_pieces_are_counted_in_the_labels_that_are_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three films with one piece; among 37 of a validation patient or a drawn one, of which few are decoded, two."""
    for number in range(3):
        write(tmp_path / "own", f"b{number}", (ONE, 2, 2))
    for number in range(34):
        write(tmp_path / "own", f"a{number:02}", (ONE, 2, 2), (ONE, 20, 20))
    dataset = open_dataset(tmp_path / "own")
    budget = {case.name for case in dataset if case.name.startswith("b")}
    assert take_fingerprint(dataset).classes[0].pieces is None
    found = take_fingerprint(dataset, counted=budget)
    assert found.classes[0].pieces == 1
    assert len(found.shapes) == 32  # as many as without
    assert take_fingerprint(dataset, counted=set(sorted(budget)[:2])).classes[0].pieces is None
    monkeypatch.chdir(tmp_path)
    corrected = Path("corrections")
    write(corrected, "c0", (ONE, 2, 2))
    (corrected / "corrections.jsonl").write_text('{"radiffuse": "1", "case": "c0", "label": "l"}\n')
    cases = (*dataset.cases, Case("c0", (corrected / "images" / "c0.png",)))
    more = replace(dataset, cases=cases)
    assert _corrected(more, ["corrections", "own"]) == {"c0"}


def test_classes_with_one_reason_are_named_in_one_sentence(tmp_path: Path) -> None:
    for patient in ("p1", "p2", "p3", "p4"):
        write(tmp_path, patient, (ONE, 2, 2), (TWO, 20, 20))
    steps, why = _kept_pieces(
        None, ("background", "spleen", "liver"), take_fingerprint(open_dataset(tmp_path))
    )
    assert steps == ("1=keep:1", "2=keep:1")
    assert why == "every label map to learn from has as many pieces of spleen, liver"


def test_islands_are_dropped_where_few_label_maps_show_large_pieces_alone(tmp_path: Path) -> None:
    """Films of 32 x 32: squares of 16 pixels are 1.6 % of them, two that touch 3.1 %; volumes need a tenth of that."""
    wide = ((ONE, 2, 2), (ONE, 2, 6))
    write(tmp_path / "a", "p1", *wide, (TWO, 20, 20))
    plan = planned(tmp_path / "a")
    assert plan.postprocess == (
        "1=islands:0.00781",
    )  # a quarter of 32 of 1024; the other class is small
    assert "class-1" in plan.reasons["postprocess"]
    write(tmp_path / "a", "p2", *wide, (ONE, 20, 2))  # a small piece too
    assert planned(tmp_path / "a").postprocess == ()
    write(tmp_path / "b", "p1", *wide)
    write(tmp_path / "b", "p2", *wide, (ONE, 6, 2), (ONE, 20, 2), (ONE, 20, 6))  # 48 and 32
    assert planned(tmp_path / "b").postprocess == ("1=islands:0.00781",)
    known = replace(take_fingerprint(open_dataset(tmp_path / "b")), unit="mm")
    assert _kept_pieces(None, ("background", "class-1"), known)[0] == ("1=drop:8",)
    write(tmp_path / "b", "p3", *wide)  # three patients, who differ in the number
    assert planned(tmp_path / "b").postprocess == ()
    assert island_size([40.0, 12.0], [0.003, 0.0021], 2, 3) == pytest.approx((3, 0.000525))
    assert island_size([40.0, 12.0], [0.003, 0.0019], 2, 3) is None
    assert island_size([], [], 0, 3) is None


def test_films_of_one_patient_are_one_opinion(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path, f"film{number}", (ONE, 2, 2))
    assert planned(tmp_path).postprocess == ("1=keep:1",)
    (tmp_path / "patients.csv").write_text(
        "image,patient\n" + "".join(f"film{n}.png,{'ab'[n % 2]}\n" for n in range(4))
    )
    plan = planned(tmp_path)
    assert plan.postprocess == ()
    assert "postprocess" not in plan.reasons
