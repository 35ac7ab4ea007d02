"""Whatever is wrong with a file that describes data or a run, a clear line comes out, and memory stays bounded."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from damaged_files import Sample, attempt, make_documents, make_images

GOOD = ("read", "refused in one line")
DOCUMENTS = (
    *("COCO JSON", "table CSV", "classes.json", "patients.csv", "plan.json", "splits.json"),
    *("settings YAML", "config.yaml", "model config.json", "model safetensors"),
    *("checkpoint state.json", "checkpoint safetensors"),
)
IMAGES = ("DICOM series", "DICOM frames")  # the others: test_read_bad_input.py


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    folder = tmp_path_factory.mktemp("samples")
    return make_documents(folder / "documents") | make_images(folder / "images")


def damage_many(samples: dict[str, Sample], name: str, folder: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        outcome, detail = attempt(samples[name], folder, chance)
        assert outcome in GOOD, f"try {number}: {outcome}: {detail}"


def test_the_samples_are_sound(samples: dict[str, Sample]) -> None:
    assert {*DOCUMENTS, *IMAGES} <= set(samples)
    for name, sample in samples.items():
        if name != "DICOM frames":  # a film sequence, which is refused even when it is whole
            sample.read(sample.folder)


@pytest.mark.parametrize("name", [*DOCUMENTS, *IMAGES])
def test_damage(samples: dict[str, Sample], tmp_path: Path, name: str) -> None:
    damage_many(samples, name, tmp_path / "hurt", 12, 0)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", [*DOCUMENTS, *IMAGES])
def test_much_damage(samples: dict[str, Sample], tmp_path: Path, name: str) -> None:
    damage_many(samples, name, tmp_path / "hurt", 500, 1)
