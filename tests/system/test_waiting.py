"""What work took, and what of it was waiting: held against the processor time that the system counts."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from radiffuse.config import Machine
from radiffuse.system import hardware, waiting
from radiffuse.system.hardware import quota
from radiffuse.system.waiting import Moment, Spent
from radiffuse.train import device

pinned = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="cores can be chosen on Linux"
)


@contextmanager
def one_core(others: int) -> Iterator[None]:
    """This process on a single core, which it shares with others that never rest."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
        os.sched_setaffinity(0, before)


def computed(processor: float) -> tuple[Spent, float]:
    """What so many seconds of computing took, and the seconds that the system counted for them."""
    began, start = Moment.now(), time.process_time()
    while time.process_time() - start < processor:
        pass
    return Moment.now().since(began, 1), time.process_time() - start


@pinned
@pytest.mark.parametrize("counted", [True, False])
def test_what_others_took_is_not_counted(
    counted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two others on its core, work takes about three times as long; what is left is its own time."""
    if not counted:
        monkeypatch.setattr(waiting, "THREADS", tmp_path / "none")
    with one_core(2):
        spent, own = computed(0.3)
    assert spent.seconds > 1.8 * own
    assert spent.alone == pytest.approx(own, rel=0.1)


def test_the_thread_that_waited_longest_held_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "cores", lambda: 2)
    monkeypatch.setattr(waiting, "quota", lambda cgroup: math.inf)
    before = Moment(10.0, 5.0, {"1": 1.0, "2": 1.0, "gone": 0.0})
    after = Moment(14.0, 9.0, {"1": 1.5, "2": 3.0, "new": 9.0})
    assert after.since(before, 2) == Spent(4.0, 2.0)
    assert after.since(before, 3) == Spent(4.0)  # of three threads on two cores one always waits
    # Its wait was read before it was stopped, and the clock after.
    late = Moment(14.0, 9.0, {"1": 1.5, "2": 4.9})
    assert late.since(before, 2) == Spent(4.0, 2.0)  # two threads computed for 4 s
    untold = [Moment(m.clock, m.processor, {}) for m in (before, after)]
    assert untold[1].since(untold[0], 2) == Spent(4.0)
    monkeypatch.setattr(waiting, "quota", lambda cgroup: 1.5)
    assert after.since(before, 2) == Spent(4.0)  # the container, not other work, makes them wait


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_cores_of_a_container(
    tmp_path: Path, files: dict[str, str], cores: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert quota(tmp_path) == cores
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(hardware.psutil.Process, "cpu_affinity", lambda _: [0, 1, 2], raising=False)
    assert hardware.cores() == min(3, max(1, math.ceil(min(cores, 3))))


def test_torch_has_no_more_threads_than_a_container_has_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr(device, "cores", lambda: 2)
        device.local_device(Machine(accelerator="cpu"))
        assert torch.get_num_threads() == 2
        device.local_device(Machine(accelerator="cpu", threads=3))  # as asked for
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
