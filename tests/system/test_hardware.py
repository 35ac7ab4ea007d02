"""Memory is counted since it was last forgotten."""

from __future__ import annotations

import sys

import pytest
import torch

from radiffuse.system.hardware import forget_peak_memory, peak_memory, this_machine

MANY = 300 * 2**20


@pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(), reason="the peak of a Linux process"
)
def test_the_peak_of_one_training_is_not_that_of_the_next() -> None:
    taken = bytearray(MANY)
    most = peak_memory()
    assert most >= MANY
    del taken
    forget_peak_memory()
    if (less := peak_memory()) == most:
        pytest.skip("this container does not let a process forget its peak")
    assert less < most - MANY // 2


def test_a_card_that_does_not_compute_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A card")
    assert this_machine() == this_machine("cuda") == "A card"
    assert " core" in this_machine("cpu")
