"""Commands that are killed, stopped or starved at a few fixed random moments; ``make bench`` does it more often."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from read_samples import dicom, save

from fault_runs import COMMANDS, Bench, Runner, differences, half_written
from radiffuse.data.names import short_hash

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Runner() as run:
        yield Bench(run, tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize(
    "name", ["pretrain", "diffusion", "synthesize", "classify", "augment", "clean-features"]
)
def test_a_run_killed_at_any_moment_ends_the_same(bench: Bench, name: str) -> None:
    straight, _ = bench.reference(name)
    moment = random.Random(name).uniform(0.1, 0.9) * straight.cpu
    outcome, detail = bench.kill(name, kill_after=moment)
    assert outcome == "identical", detail


@pytest.mark.parametrize(
    "name",
    [
        *("finetune", "generate", "predict", "evaluate", "report"),
        *("zeroshot", "zeroshot-volumes", "export", "select", "judge"),
    ],
)
def test_a_run_killed_at_a_write_ends_the_same(bench: Bench, name: str) -> None:
    straight, _ = bench.reference(name)
    write = random.Random(name).randrange(straight.writes)
    outcome, detail = bench.kill(name, kill_at_write=write)
    assert outcome == "identical", detail


@pytest.mark.parametrize(
    "name", ["synthesize", "generate", "augment", "zeroshot", "evaluate", "export-bundle", "select"]
)
def test_a_command_that_is_asked_to_stop_says_so_and_ends_the_same(bench: Bench, name: str) -> None:
    straight, _ = bench.reference(name)
    write = random.Random(name).randrange(straight.writes)
    outcome, detail = bench.kill(name, kill_at_write=write, number=signal.SIGTERM)
    assert outcome == "identical", detail


@pytest.mark.parametrize("size", [0, 1000, 20_000, 40_000])
def test_a_disk_that_refuses_is_one_line_and_the_rerun_ends_the_same(
    bench: Bench, size: int
) -> None:
    _, straight = bench.reference("finetune")
    cwd = bench.place("finetune")
    words = COMMANDS["finetune"].split()
    first = bench.run(words, cwd, file_size=size)
    assert first.clear, first.text
    assert not half_written(cwd)
    assert bench.run(words, cwd).code == 0
    assert not differences(bench.result("finetune", straight), bench.result("finetune", cwd))


def test_a_clock_set_back_changes_nothing(bench: Bench) -> None:
    straight, reference = bench.reference("finetune")
    cwd = bench.place("finetune")
    words = COMMANDS["finetune"].split()
    assert bench.run(words, cwd, kill_at_write=straight.writes * 2 // 3).killed
    assert bench.run(words, cwd, clock=-3e8).code == 0
    assert not differences(bench.result("finetune", reference), bench.result("finetune", cwd))


def test_a_patient_of_a_dicom_header_is_nowhere_in_a_run(bench: Bench, tmp_path: Path) -> None:
    """Neither run, report, cache nor messages hold name, number or date, nor a hash of the number."""
    secrets = ("<b>DOE^JANE</b>", "4711-0815", "19450327")
    for number in range(6):
        film = dicom(np.full((32, 32), 7 * number, np.uint16) + np.arange(32, dtype=np.uint16))
        film.PatientName, film.PatientID, film.PatientBirthDate = secrets
        film.SeriesInstanceUID, film.StudyInstanceUID = f"1.2.3.{number}", "1.2.4"
        film.Modality, film.SOPInstanceUID = "DX", f"1.2.5.{number}"
        (tmp_path / "dicom").mkdir(exist_ok=True)
        save(film, tmp_path / "dicom" / f"{number}.dcm")
    words = COMMANDS["pretrain"].replace("pretrain films", "pretrain dicom").split()
    outcome = bench.run(words, tmp_path)
    assert outcome.code == 0, outcome.text
    files = [p for p in tmp_path.rglob("*") if p.is_file() and "dicom" not in p.parts]
    assert len(files) > 10
    for secret in (*secrets, "DOE^JANE", short_hash("4711-0815")):
        assert secret not in outcome.text
        for path in files:
            assert secret.encode() not in path.read_bytes(), path
