"""Cases are done once each, whatever becomes of a worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from radiffuse.config import Data, PlanSettings
from radiffuse.data import prepare as preparation
from radiffuse.data import workers as module
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import make_plan
from radiffuse.data.prepare import prepare
from radiffuse.data.prepared import Prepared
from radiffuse.data.workers import each
from radiffuse.errors import InputError


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a scheduler with two workers, each a process that is started again where it dies."""
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    settings = {
        "distributed.worker.multiprocessing-method": "forkserver",
        "distributed.scheduler.allowed-failures": 1,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        yield cluster.scheduler_address


def prepared(data: Path, cache: Path, **options: object) -> Prepared:
    dataset = open_dataset(data, Data())
    plan = make_plan(dataset, PlanSettings(size=(32, 32)), labelled=False)
    return prepare(dataset, plan, labelled=False, cache=cache, **options)  # type: ignore[arg-type]


def assert_same_arrays(one: Prepared, other: Prepared) -> None:
    assert [case.name for case in one.cases] == [case.name for case in other.cases]
    for i in range(len(one)):
        np.testing.assert_array_equal(one.image(i), other.image(i))


def halves(n: int) -> float:
    if n % 5 == 3:
        raise InputError(str(n), "is bad", "Leave it out")
    return n / 2


def test_as_many_threads_as_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, number: int | None) -> None:
            asked.append(number)
            super().__init__(number)

    monkeypatch.setattr("os.cpu_count", lambda: 128)
    monkeypatch.setattr("psutil.Process.cpu_affinity", lambda self: [4, 7])  # of a job that has two
    monkeypatch.setattr(module, "ThreadPoolExecutor", Pool)
    assert [result for _, result in each(halves, [2, 4])] == [halves(2), halves(4)]
    assert asked == [2]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_outcomes_come_in_order_and_a_bad_item_stops_no_other(workers: int) -> None:
    outcomes = list(each(halves, range(200), workers=workers))
    assert [item for item, _ in outcomes] == list(range(200))
    for item, outcome in outcomes:
        assert isinstance(outcome, InputError) if item % 5 == 3 else outcome == item / 2


def test_what_is_not_taken_is_not_done() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def work(n: int) -> None:
        with lock:
            begun.append(n)
        time.sleep(0.001)

    outcomes = each(work, range(10_000), workers=2)
    next(outcomes)
    outcomes.close()
    assert len(begun) < 200


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        list(each(lambda n: 1 // n, [1, 0, 1], workers=1))


def test_nobody_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("radiffuse.data.workers.CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match="no dask scheduler answers there"):
        list(each(halves, [1], scheduler="tcp://127.0.0.1:9"))


def test_a_worker_is_killed_and_every_case_is_done_once(
    unlabelled: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    monkeypatch.setattr(preparation, "CHUNK", 2)
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
        victims = list(client.run(os.getpid).values())
    assert len(victims) == 2

    def kill(done: int, total: int) -> None:
        if victims:
            os.kill(victims.pop(), signal.SIGKILL)
            victims.clear()

    far = prepared(unlabelled, tmp_path / "far", scheduler=cluster, progress=kill)
    assert not victims
    rows = [
        json.loads(line)["row"] for line in (far.folder / "rows.jsonl").read_text().splitlines()
    ]
    assert sorted(rows) == list(range(20))
    assert_same_arrays(far, prepared(unlabelled, tmp_path / "near"))


def test_a_bad_case_stops_no_other_on_a_cluster(
    unlabelled: Path, cluster: str, tmp_path: Path
) -> None:
    shutil.copytree(unlabelled, tmp_path / "films")
    victim = sorted((tmp_path / "films").rglob("*.png"))[7]
    victim.write_bytes(victim.read_bytes()[:60])
    films, cache = tmp_path / "films", tmp_path / "cache"
    with pytest.raises(InputError, match=victim.name):
        prepared(films, cache, scheduler=cluster)
    far = prepared(films, cache, scheduler=cluster, skip_bad=True)
    assert len(far) == 19
    assert [skipped.case for skipped in far.skipped] == [victim.stem]
    assert_same_arrays(far, prepared(films, tmp_path / "near", skip_bad=True))


def deadly(n: int) -> int:
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


@pytest.mark.slow
def test_an_item_that_kills_its_workers_is_bad_and_the_others_are_done(cluster: str) -> None:
    outcomes = dict(each(deadly, range(6), scheduler=cluster, chunk=3, name=lambda n: f"case {n}"))
    error = outcomes.pop(3)
    assert "case 3: kills every worker that tries it" in str(error)
    assert outcomes == {n: n for n in (0, 1, 2, 4, 5)}


@pytest.mark.slow
def test_masks_and_features_of_a_cluster_are_those_of_this_machine(
    films: Path, unlabelled: Path, pretrained: Path, cluster: str, tmp_path: Path
) -> None:
    import radiffuse
    from radiffuse.config import Machine
    from radiffuse.synthesis.feature_network import open_images, open_network

    machine = {"accelerator": "cpu", "precision": "32-true"}
    run = radiffuse.fit(
        data=films,
        method="finetune",
        from_=str(pretrained),
        out=tmp_path / "run",
        training={"steps": 2, "batch_size": 2},
        reader={"cache": str(tmp_path / "cache")},
        machine=machine,
    )
    near, far = (
        radiffuse.predict(
            runs=(str(run.folder),),
            data=unlabelled,
            out=tmp_path / str(scheduler is None),
            machine=machine | {"scheduler": scheduler},
        )
        for scheduler in (None, cluster)
    )
    names = sorted(path.name for path in near.iterdir())
    assert names == sorted(path.name for path in far.iterdir())
    assert len(names) == 24  # 20 masks, their record in two files, classes.json and the lock
    for name in names:  # the lines of the record come in any order
        one, other = ((folder / name).read_bytes().splitlines() for folder in (near, far))
        assert (sorted(one), len(one)) == (sorted(other), len(other)), name
        assert (far / name).stat().st_mode & 0o777 == 0o600, name

    dataset = open_dataset(unlabelled, Data())
    network = open_network(str(pretrained), dataset)
    rows = [
        open_images(
            network,
            dataset,
            Data(cache=str(tmp_path / f"cache-{scheduler is None}")),
            Machine(accelerator="cpu", precision="32-true", scheduler=scheduler),
            least=1,
        ).features
        for scheduler in (None, cluster)
    ]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5, atol=1e-6)
