"""Files about patients are readable by the user who writes them, and by nobody else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Files that this process makes within are for this user alone (0600, folders 0700), whatever the umask says."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
