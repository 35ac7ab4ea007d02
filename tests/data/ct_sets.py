"""The public sets of abdominal CT in small: the names and folders of the real ones, around volumes of a few voxels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from layout_files import write_json

from radiffuse.data.class_names import classes_of_set
from radiffuse.data.scan import Array

SHAPE = (20, 18, 16)
AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
PLACES = {"liver": 2, "spleen": 6, "left kidney": 10, "stomach": 14}
"""Organs that every set labels, and where they begin along the first axis."""


def body(seed: int) -> tuple[Array, dict[str, Array]]:
    """HU in air and a body with four organs, and the mask of each."""
    rng = np.random.default_rng(seed)
    image = np.full(SHAPE, -1000.0)
    image[1:19, 1:17] = 0
    masks = {}
    for name, place in PLACES.items():
        masks[name] = np.zeros(SHAPE, bool)
        masks[name][place : place + 3, 4:12, 4:12] = True
        image[masks[name]] = 40 + 10 * place
    return (image + rng.normal(0, 5, SHAPE)).astype(np.int16), masks


def save(array: Array, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)


def label_of(name: str, masks: dict[str, Array]) -> Array:
    """One label map in the numbering of a set."""
    label = np.zeros(SHAPE, np.uint8)
    for value, organ in classes_of_set(name).items():
        if organ in masks:
            label[masks[organ]] = value
    return label


def btcv(root: Path) -> Path:
    """Returns the folder that is given to radiffuse."""
    for i in range(1, 6):
        image, masks = body(i)
        save(image, root / "RawData/Training/img" / f"img{i:04d}.nii.gz")
        save(label_of("btcv", masks), root / "RawData/Training/label" / f"label{i:04d}.nii.gz")
    for i in (61, 62):
        save(body(i)[0], root / "RawData/Testing/img" / f"img{i:04d}.nii.gz")
    return root / "RawData"


def flare22(root: Path) -> Path:
    for i in range(1, 6):
        image, masks = body(i)
        folder, name = root / "FLARE22Train", f"FLARE22_Tr_{i:04d}"
        save(image, folder / "images" / f"{name}_0000.nii.gz")
        save(label_of("flare22", masks), folder / "labels" / f"{name}.nii.gz")
    return root / "FLARE22Train"


def amos22(root: Path) -> Path:
    parts: dict[str, list[dict[str, str]]] = {"Tr": [], "Va": [], "Ts": []}
    for part, numbers in (("Tr", (1, 4, 5)), ("Va", (8, 13)), ("Ts", (2,))):
        for i in numbers:
            image, masks = body(i)
            entry = {kind: f"./{kind}s{part}/amos_{i:04d}.nii.gz" for kind in ("image", "label")}
            save(image, root / entry["image"])
            if part != "Ts":
                save(label_of("amos22", masks), root / entry["label"])
            parts[part].append(entry)
    names = ["background", "spleen", "right kidney", "left kidney", "gall bladder", "esophagus",
             "liver", "stomach", "arota", "postcava", "pancreas", "right adrenal gland",
             "left adrenal gland", "duodenum", "bladder", "prostate/uterus"]  # fmt: skip
    content = {
        "modality": {"0": "CT"}, "labels": {str(i): name for i, name in enumerate(names)},
        "training": parts["Tr"], "validation": parts["Va"], "test": parts["Ts"],
    }  # fmt: skip
    write_json(root / "dataset.json", content)
    return root


def msd(root: Path) -> Path:
    entries = []
    for i in range(1, 6):
        image, masks = body(i)
        entry = {kind: f"./{kind}sTr/spleen_{i}.nii.gz" for kind in ("image", "label")}
        save(image, root / entry["image"])
        save(masks["spleen"].astype(np.uint8), root / entry["label"])
        entries.append(entry)
    save(body(9)[0], root / "imagesTs/spleen_9.nii.gz")
    (root / "imagesTr/._spleen_1.nii.gz").write_bytes(b"\0\5\x16\7")  # as the archives bring them
    content = {
        "modality": {"0": "CT"}, "labels": {"0": "background", "1": "spleen"},
        "training": entries, "test": ["./imagesTs/spleen_9.nii.gz"],
    }  # fmt: skip
    write_json(root / "dataset.json", content)
    return root


def totalsegmentator(root: Path, names: tuple[str, ...] = ()) -> Path:
    """All masks are there, empty ones too; ``names`` are further structures, empty everywhere."""
    rows = ["image_id;age;gender;institute;study_type;split"]
    for i, split in ((0, "train"), (1, "train"), (2, "train"), (3, "val"), (4, "test")):
        image, masks = body(i)
        save(image, root / f"s{i:04d}" / "ct.nii.gz")
        masks |= {name: np.zeros(SHAPE, bool) for name in names}
        masks["colon"] = np.zeros(SHAPE, bool)
        for name, mask in masks.items():
            file = name.replace("left kidney", "kidney_left").replace(" ", "_")
            save(mask.astype(np.uint8), root / f"s{i:04d}" / "segmentations" / f"{file}.nii.gz")
        rows.append(f"s{i:04d};60;m;A;abdomen;{split}")
    (root / "meta.csv").write_text("\n".join(rows) + "\n")
    return root


SETS = {
    "btcv": btcv,
    "flare22": flare22,
    "amos22": amos22,
    "msd": msd,
    "totalsegmentator": totalsegmentator,
}
