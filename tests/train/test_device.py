"""Sums in a fixed order on a GPU: asked for, given, and taken back. No card is needed to see that."""

from __future__ import annotations

import pytest
import torch

from radiffuse.config import Machine
from radiffuse.errors import InputError
from radiffuse.train.device import fixed_order

CARD = torch.device("cuda")


def ordered() -> bool:
    return torch.are_deterministic_algorithms_enabled()


def test_sums_have_a_fixed_order_within_and_only_where_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with fixed_order(Machine(deterministic=True), CARD):
        assert ordered()
        assert not torch.backends.cudnn.benchmark
    assert not ordered()
    assert torch.backends.cudnn.benchmark
    for machine, device in ((Machine(), CARD), (Machine(deterministic=True), torch.device("cpu"))):
        with fixed_order(machine, device):
            assert not ordered()


def test_what_a_caller_had_set_is_as_it_was() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with fixed_order(Machine(deterministic=True), CARD):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_process_in_which_it_comes_too_late_says_what_to_do() -> None:
    late = "Deterministic behavior was enabled, but set CUBLAS_WORKSPACE_CONFIG=:4096:8"
    with (
        pytest.raises(InputError, match="set CUBLAS_WORKSPACE_CONFIG=:4096:8 before"),
        fixed_order(Machine(deterministic=True), CARD),
    ):
        raise RuntimeError(late)


def test_what_has_no_fixed_order_is_refused_by_name() -> None:
    missing = "grid_sampler_3d_backward_cuda does not have a deterministic implementation"
    with (
        pytest.raises(InputError, match="--machine.deterministic: grid_sampler_3d_backward_cuda"),
        fixed_order(Machine(deterministic=True), CARD),
    ):
        raise RuntimeError(missing)
    assert not ordered()
    with (
        pytest.raises(RuntimeError, match="another"),
        fixed_order(Machine(deterministic=True), CARD),
    ):
        raise RuntimeError("another fault")
    with (
        pytest.raises(InputError, match="mps adds up in no fixed order"),
        fixed_order(Machine(deterministic=True), torch.device("mps")),
    ):
        pass
