"""Memory that a step of a training frees stays with the process, for the next step to take, where there is plenty.

A step on a processor allocates some hundred activations and frees them again. The C library of Linux gives every large
one back to the kernel, which hands out pages anew, filled with zeros, at the next step. Keeping them saves that time,
but leaves holes between what is in use: with 3D patches of 64 voxels a side the process takes a quarter more, with
larger ones still more (``heap3d`` in ``results/speed.csv``). Once the C library could not give a process what it asked
for, nothing is gained in it any more: large ones are mapped on their own again, whatever is set.
"""

from __future__ import annotations

import ctypes
import os
import sys
from types import TracebackType
from typing import Self

from .hardware import free_memory, peak_memory

# Of malloc.h of glibc; mallopt(3) says what they mean.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 64 * 2**20}
"""Nothing is mapped on its own, and the heap never shrinks."""
RETURN = {
    MMAP_MAX: 2**16,
    MMAP_THRESHOLD: 32 * 2**20,
    TRIM_THRESHOLD: 64 * 2**20,
    TOP_PAD: 2**17,
}
"""As a process comes to be by itself once it has freed large arrays."""
OWN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables by which a user sets this."""
PLENTY = 4
"""The memory of a step has to be free so many times over."""


class Heap:
    """Within, what steps free is kept, once ``settle`` has found plenty of memory; afterwards all of it is given back.

    How much memory a step takes is told by the peak since ``forget_peak_memory``. Does nothing on an accelerator, where
    the C library is not glibc, or where a variable of the environment sets it up otherwise.
    """

    def __init__(self, device: str, processes: int = 1) -> None:
        """For steps on a device of a type such as ``cpu``, by processes that may all run on this machine."""
        usable = device == "cpu" and not any(name in os.environ for name in OWN)
        self._library = _glibc() if usable else None
        self._processes, self._settled, self._kept = processes, False, False

    def __enter__(self) -> Self:
        return self

    def settle(self) -> None:
        """To be called after every step: the first one shows how much memory a step takes."""
        if self._settled or self._library is None:
            return
        self._settled = True
        if PLENTY * self._processes * peak_memory() <= free_memory():
            self._kept = True
            _set(self._library, KEEP)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._kept and self._library is not None:
            _set(self._library, RETURN)
            self._library.malloc_trim(0)


def _set(library: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        library.mallopt(option, value)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
