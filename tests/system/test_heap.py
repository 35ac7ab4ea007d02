"""Memory that is freed within a training is kept where there is plenty, and given back after it.

Every test has a process of its own: once the C library could not give a thread what it asked for, it serves that thread
from another arena for good, where large tensors are always mapped on their own.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable

import pytest
import torch

from radiffuse.system import heap
from radiffuse.system.heap import Heap

LARGE = 2**24
"""Numbers of a tensor of 64 MiB, which glibc maps on its own."""
FEW, MANY = 1000, 10_000
STEP = 2**30
"""Bytes that a step takes, in the tests of how much is plenty."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of glibc")


def _taken_again() -> None:
    with Heap("cpu") as kept:
        assert _pages() > MANY
        kept.settle()
        assert _pages() < FEW
    assert _pages_of_one() > MANY  # the next one may stay in the hole that this one leaves


def _given_back() -> None:
    before = _resident()
    with Heap("cpu") as kept:
        kept.settle()
        _pages()
        assert _resident() - before > 2 * LARGE
    assert _resident() - before < 2 * LARGE


def _not_plenty() -> None:
    heap.peak_memory = lambda: STEP
    for free, processes in ((4 * STEP - 1, 1), (8 * STEP - 1, 2)):
        heap.free_memory = lambda free=free: free
        _left_alone("cpu", processes)


def _set_by_user() -> None:
    os.environ["MALLOC_MMAP_MAX_"] = "100"
    _left_alone("cpu")


def _accelerator() -> None:
    _left_alone("cuda")


def _other_library() -> None:
    heap._glibc = lambda: None
    _left_alone("cpu")


@pytest.mark.parametrize(
    "claim",
    [_taken_again, _given_back, _not_plenty, _set_by_user, _accelerator, _other_library],
)
def test_in_a_process_of_its_own(claim: Callable[[], None]) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_with_plenty, args=(claim,))
    process.start()
    process.join()
    assert process.exitcode == 0


def _with_plenty(claim: Callable[[], None]) -> None:
    """However little memory the machine has."""
    heap.free_memory = lambda: 2**60
    claim()


def _left_alone(device: str, processes: int = 1) -> None:
    with Heap(device, processes) as kept:
        kept.settle()
        assert _pages() > MANY


def _pages() -> int:
    """Pages that the kernel hands out while a large tensor comes and goes, in the best of some times."""
    return min(_pages_of_one() for _ in range(4))


def _pages_of_one() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(LARGE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _resident() -> int:
    """Bytes of this process that lie in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
