"""Scores by name between data sets that number their organs differently."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from layout_files import SHARED, volume, write_json

import radiffuse
from radiffuse.data.class_names import classes_of_set
from radiffuse.data.scan import Array, Scan
from radiffuse.errors import InputError
from radiffuse.evaluation.matching import match
from radiffuse.evaluation.tables import evaluate_cases

SHAPE = (8, 7, 6)


def organs(set_name: str, where: dict[str, slice]) -> Array:
    """A label map in the numbering of a set, with organs at slices of the first axis."""
    values = {name: value for value, name in classes_of_set(set_name).items()}
    array = np.zeros(SHAPE, np.uint8)
    for name, place in where.items():
        array[place] = values[name]
    return array


def save(array: Array, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return path


def test_the_same_organs_in_two_numberings_agree_perfectly() -> None:
    places = {"liver": slice(0, 2), "left kidney": slice(2, 3), "stomach": slice(4, 6)}
    matching = match(classes_of_set("btcv"), classes_of_set("totalsegmentator"))
    pair = [
        matching.translate(Scan(organs(name, places)[None]), "case", side)
        for side, name in enumerate(("btcv", "totalsegmentator"))
    ]
    table = evaluate_cases([("case", *pair)], matching.classes)
    counted = table[table["counted"]].set_index("class")
    assert set(counted.index) == set(places)
    assert (counted["dice"] == 1).all()
    assert len(matching.classes) == 14
    assert not matching.unshared(0)
    assert "colon" in matching.unshared(1).values()


def test_what_the_other_side_does_not_label_counts_as_not_that_organ() -> None:
    """Duodenum called stomach is a false positive of the stomach; duodenum left alone costs nothing."""
    matching = match(classes_of_set("btcv"), classes_of_set("flare22"))
    truth = organs("flare22", {"stomach": slice(0, 2), "duodenum": slice(2, 4)})
    right = organs("btcv", {"stomach": slice(0, 2), "portal and splenic veins": slice(2, 4)})
    wrong = organs("btcv", {"stomach": slice(0, 4)})
    for array, dice in ((right, 1.0), (wrong, 2 * 2 / (4 + 2))):
        pair = (
            matching.translate(Scan(array[None]), "case", 0),
            matching.translate(Scan(truth[None]), "case", 1),
        )
        table = evaluate_cases([("case", *pair)], matching.classes).set_index("class")
        assert table.loc["stomach", "dice"] == pytest.approx(dice)
    assert list(matching.unshared(0).values()) == ["portal and splenic veins"]
    assert list(matching.unshared(1).values()) == ["duodenum"]
    assert "duodenum" not in matching.classes
    unscored = {str(row["class"]): row for row in matching.rows() if not row["scored"]}
    assert unscored["duodenum"] == {
        "class": "duodenum", "prediction": "", "truth": 12, "scored": False,
    }  # fmt: skip


def test_what_is_to_be_ignored_stays_so_and_only_in_the_truth() -> None:
    matching = match({0: "background", 1: "liver"}, {0: "background", 3: "Liver"})
    scan = Scan(np.array([[0, 3, 255]]))
    assert matching.translate(scan, "case", 1).array.tolist() == [[0, 1, 255]]
    with pytest.raises(InputError, match="prediction holds the value 3"):
        matching.translate(scan, "case", 0)


def test_names_that_do_not_meet_are_refused() -> None:
    with pytest.raises(InputError, match="share no class"):
        match({1: "liver"}, {1: "lung"})
    with pytest.raises(InputError, match="both 1 and 2 left kidney"):
        match({1: "left kidney", 2: "kidney_left"}, {1: "left kidney"})


@pytest.mark.usefixtures("drawn")
def test_evaluate_by_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"liver": slice(0, 3), "spleen": slice(4, 5)}
    for case in ("a", "b"):
        volume(tmp_path / "set" / "images" / f"{case}.nii.gz")
        truth = organs("totalsegmentator", places | {"colon": slice(6, 7)})
        save(truth, tmp_path / "set" / "labels" / f"{case}.nii.gz")
        save(organs("btcv", places), tmp_path / "masks" / f"{case}.nii.gz")
    out = radiffuse.evaluate(
        masks=tmp_path / "masks",
        truth=tmp_path / "set",
        prediction_classes="btcv",
        truth_classes="totalsegmentator",
        out=tmp_path / "out",
    )
    table = pd.read_csv(out / "cases.csv")
    assert set(table.loc[table["counted"], "class"]) == {"liver", "spleen"}
    assert (table["dice"].dropna() == 1).all()
    classes = pd.read_csv(out / "classes.csv").set_index("class")
    assert classes.loc["liver", ["prediction", "truth"]].tolist() == [6, 5]
    assert not classes.loc["colon", "scored"]
    page = (out / "report.html").read_text()
    assert "Classes by name" in page
    assert "only in the truth: 104" in page
    assert "colon" in page
    assert "only in the prediction" not in page
    printed = capsys.readouterr().out
    assert "scored by name: spleen, right kidney" in printed
    assert "only in the truth, not scored:" in printed
    with pytest.raises(InputError, match=r"does not say .*with prediction_classes"):
        radiffuse.evaluate(
            masks=tmp_path / "masks", truth=tmp_path / "set", truth_classes="btcv", out=out
        )


def test_evaluate_by_the_names_in_the_folders(tmp_path: Path) -> None:
    """The masks of radiffuse predict carry the names of their run."""
    root = tmp_path / "set"
    volume(root / "images" / "a.nii.gz")
    save(organs("amos22", {"liver": slice(0, 3)}), root / "labels" / "a.nii.gz")
    write_json(root / "classes.json", {"6": "Liver", "7": "stomach"})
    save(organs("flare22", {"liver": slice(0, 3)}), tmp_path / "masks" / "a.nii.gz")
    write_json(tmp_path / "masks" / "classes.json", {"0": "background", "1": "liver"})
    out = radiffuse.evaluate(masks=tmp_path / "masks", truth=root, out=tmp_path / "out")
    table = pd.read_csv(out / "cases.csv")
    assert table[["class", "dice"]].to_numpy().tolist() == [["liver", 1.0]]
    write_json(tmp_path / "masks" / "classes.json", {"1": "class-1"})  # found, never named
    save(organs("amos22", {"liver": slice(0, 3)}), tmp_path / "masks" / "a.nii.gz")
    out = radiffuse.evaluate(masks=tmp_path / "masks", truth=root, out=tmp_path / "out")
    assert not (out / "classes.csv").exists()


@pytest.mark.parametrize(
    ("case", "truth"), [("abdomen", "totalsegmentator-v1"), ("slab", "totalsegmentator")]
)
def test_the_real_ct_against_its_own_labels_in_another_numbering(
    case: str, truth: str, tmp_path: Path
) -> None:
    root = SHARED / "ct-abdomen"
    if not root.is_dir():
        pytest.skip("shared/data/ct-abdomen is not beside the project")
    label = nib.load(root / "labels" / f"{case}.nii.gz")
    array = np.asarray(label.dataobj)
    btcv = {name: value for value, name in classes_of_set("btcv").items()}
    mask = np.zeros(array.shape, np.uint8)
    for value, name in classes_of_set(truth).items():
        if value and name in btcv:
            mask[array == value] = btcv[name]
    (tmp_path / "masks").mkdir()
    nib.save(nib.Nifti1Image(mask, label.affine), tmp_path / "masks" / f"{case}.nii.gz")
    out = radiffuse.evaluate(
        masks=tmp_path / "masks",
        truth=root,
        prediction_classes="btcv",
        truth_classes=truth,
        reader={"only": f"images/{case}"},
        out=tmp_path / "out",
    )
    table = pd.read_csv(out / "cases.csv")
    counted = table[table["counted"]]
    assert set(counted["class"]) >= {"spleen", "liver", "stomach", "aorta", "inferior vena cava"}
    assert (counted["dice"] == 1).all()
    assert counted["truth_voxels"].sum() == (mask > 0).sum()
