"""Folders that radiffuse wrote are no data: passed over with a line inside a data set, refused by themselves."""

import json
from pathlib import Path

import pytest
from layout_files import film, pairs, write_json

from radiffuse.data.layouts import open_dataset, survey
from radiffuse.errors import InputError

MARKS = {
    "run": ("config.yaml", "command: fit\n"),
    "masks": ("prediction.json", '{"radiffuse": "1", "runs": [], "settings": {}}'),
    "generated": ("generation.json", '{"run": "r", "model": "ab", "seed": 0}'),
    "scores": ("evaluation.json", '{"radiffuse": "1", "masks": "m", "truth": "t"}'),
    "judged": ("judge.json", '{"network": "n", "fidelity": true, "copies": null}'),
    "study": ("study.yaml", "data: d\nmethods: [scratch]\ndraws: 3\n"),
    "augment": ("augment.yaml", "data: d\npools: [8]\nratios: [1.0]\n"),
    "cache": ("rows.jsonl", ""),
    "onnx": ("export.json", '{"format": "onnx", "checked_batches": [1]}'),
    "nnunet": ("plans.json", '{"data_identifier": "radiffusePlans_radiffuse"}'),
}


def own(folder: Path, kind: str) -> Path:
    """A folder of radiffuse that holds a picture."""
    film(folder / "a.png", seed=9)
    name, text = MARKS[kind]
    (folder / name).write_text(text)
    if kind == "run":
        (folder / "plan.json").write_text("{}")
    return folder


@pytest.mark.parametrize("kind", MARKS)
def test_a_folder_that_radiffuse_wrote_is_passed_over_with_a_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        film(tmp_path / f"{number}.png", seed=number)
    own(tmp_path / "out", kind)
    own(tmp_path / "deep" / "er", kind)
    dataset, issues = survey(tmp_path)
    assert [case.name for case in dataset] == ["0", "1", "2"]
    (issue,) = issues
    assert issue.severity == "warning"
    assert issue.where == str(tmp_path / "out")
    assert "and 1 more like it are passed over" in issue.problem
    for _ in range(2):  # a command that opens the data twice says it once
        open_dataset(tmp_path)
    assert capsys.readouterr().err.count("passed over") == 1


@pytest.mark.parametrize("kind", MARKS)
def test_by_itself_only_a_folder_of_generated_images_is_data(kind: str, tmp_path: Path) -> None:
    folder = own(tmp_path / "out", kind)
    if kind == "generated":
        assert len(open_dataset(folder)) == 1
        return
    with pytest.raises(InputError, match="not a data set"):
        open_dataset(folder)


def test_what_lies_in_a_folder_of_masks_is_no_scan(tmp_path: Path) -> None:
    folder = own(tmp_path / "out", "masks")
    film(folder / "segments" / "a.png")
    for path in (folder / "a.png", folder / "segments"):
        with pytest.raises(InputError, match="of a folder of masks that radiffuse predicted"):
            open_dataset(path)


def test_a_file_of_the_same_name_marks_nothing(tmp_path: Path) -> None:
    film(tmp_path / "a.png")
    for name, _ in MARKS.values():
        if name != "rows.jsonl":
            (tmp_path / "b").mkdir(exist_ok=True)
            (tmp_path / "b" / name).write_text(json.dumps({"study": "of a hospital"}))
    film(tmp_path / "b" / "b.png", seed=1)
    dataset, issues = survey(tmp_path)
    assert len(dataset) == 2
    assert not issues


def test_predicted_masks_as_labels_are_used_and_said(tmp_path: Path) -> None:
    """As students of another model learn; a folder named labels is meant."""
    pairs(tmp_path)
    write_json(tmp_path / "labels" / "prediction.json", json.loads(MARKS["masks"][1]))
    dataset, issues = survey(tmp_path)
    assert len(dataset.labelled) == 3
    assert [(i.where, i.problem) for i in issues] == [
        (str(tmp_path / "labels"), "holds masks that radiffuse predicted")
    ]


@pytest.mark.parametrize("place", ["", "images"])
def test_masks_written_beside_the_scans_do_not_make_them_labels(place: str, tmp_path: Path) -> None:
    """``predict RUN . --out masks``, typed in the folder of the scans, is repeated or followed by another command."""
    for number in range(3):
        film(tmp_path / place / f"{number}.png", seed=number)
        mask = f"{place}__{number}.png" if place else f"{number}.png"
        film(tmp_path / "masks" / mask, seed=9)
    write_json(tmp_path / "masks" / "prediction.json", json.loads(MARKS["masks"][1]))
    dataset, issues = survey(tmp_path)
    assert [case.images[0].name for case in dataset] == ["0.png", "1.png", "2.png"]
    assert not dataset.labelled.cases
    assert [(i.severity, i.where) for i in issues] == [("warning", str(tmp_path / "masks"))]


def test_masks_written_beside_labels_do_not_replace_them(tmp_path: Path) -> None:
    pairs(tmp_path)
    own(tmp_path / "masks", "masks")
    dataset, _ = survey(tmp_path)
    assert {case.label.parent.name for case in dataset if case.label} == {"labels"}
    assert len(dataset.labelled) == 3
