"""Memory that is freed within a training is kept where there is plenty, and given back after it."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from radiffuse.system import heap
from radiffuse.system.heap import Heap

LARGE = 2**24
"""Numbers of a tensor of 64 MiB, which glibc maps on its own."""
FEW, MANY = 1000, 10_000

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of glibc")


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much memory the tests before these took."""
    monkeypatch.setattr(heap, "free_memory", lambda: 2**60)


def test_what_is_freed_is_taken_again_without_the_kernel() -> None:
    with Heap("cpu") as kept:
        assert _pages() > MANY
        kept.settle()
        assert _pages() < FEW
    assert _pages() > MANY


def test_all_is_given_back_afterwards() -> None:
    before = _resident()
    with Heap("cpu") as kept:
        kept.settle()
        _pages()
        assert _resident() - before > 2 * LARGE
    assert _resident() - before < 2 * LARGE


def test_without_plenty_of_memory_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    step = 2**30
    monkeypatch.setattr(heap, "peak_memory", lambda: step)
    for free, processes in ((4 * step - 1, 1), (8 * step - 1, 2)):
        monkeypatch.setattr(heap, "free_memory", lambda free=free: free)
        with Heap("cpu", processes) as kept:
            kept.settle()
            assert _pages() > MANY


def test_what_a_user_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "100")
    with Heap("cpu") as kept:
        kept.settle()
        assert _pages() > MANY


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_accelerator_and_another_c_library_are_left_alone(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cpu":
        monkeypatch.setattr(heap, "_glibc", lambda: None)
    with Heap(device) as kept:
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
