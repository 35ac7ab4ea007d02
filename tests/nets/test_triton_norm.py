"""The kernels that normalize on a card, against torch's in float64.

Without a card they run, slowly, in Triton's interpreter: ``TRITON_INTERPRET=1 pytest tests/nets/test_triton_norm.py``
where the package ``triton`` is installed (its interpreter of version 3.6 wants numpy below 2.4).
"""

from __future__ import annotations

import itertools
import os
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from radiffuse.nets import norm
from radiffuse.nets.memory_format import channels_last

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cpu" and not os.environ.get("TRITON_INTERPRET"), reason="no card here"
    ),
]
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Relative error of what is kept in a type."""
SHAPES = [
    ((2, 32, 9, 7), 8),
    ((3, 48, 5, 6, 4), 16),
    ((2, 96, 16, 16), 32),
    ((1, 8, 33, 31), 4),
    ((2, 24, 3, 3), 24),
    ((2, 5, 4, 4), 1),
    ((2, 300, 40, 3), 30),
]
"""Of images and their groups: few and many channels, one channel to a group, sizes that are no powers of 2."""


def reference(
    x: Tensor, weight: Tensor, bias: Tensor, modulation: Tensor | None, groups: int, silu: bool
) -> Tensor:
    h = F.group_norm(x, groups, weight, bias, 1e-5)
    if modulation is not None:
        scale, shift = (m.reshape(*m.shape, *(1,) * (x.ndim - 2)) for m in modulation.chunk(2, 1))
        h = h * (1 + scale) + shift
    return F.silu(h) if silu else h


@pytest.mark.parametrize(
    ("shape", "groups", "programs"), [*((*each, 1024) for each in SHAPES), ((2, 24, 7, 5), 8, 10)]
)
@pytest.mark.parametrize("kind", CLOSE)
def test_values_and_gradients_are_those_of_torch(
    kind: torch.dtype,
    shape: tuple[int, ...],
    groups: int,
    programs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of few programs each takes several turns, and their sums are added up in several, as of a large volume."""
    from radiffuse.nets import triton_norm
    from radiffuse.nets.triton_norm import silu_of_norm

    monkeypatch.setattr(triton_norm, "PROGRAMS", programs)
    monkeypatch.setattr(triton_norm, "TILE", 4 * programs)
    monkeypatch.setattr(triton_norm, "SUMS", 1 << programs.bit_length() - 1)
    torch.manual_seed(0)
    images, channels = shape[:2]
    for modulating, silu in itertools.product((None, *CLOSE), (True, False)):
        x = (3 * torch.randn(shape) + 1).to(DEVICE, kind)
        x = x.contiguous(memory_format=channels_last(len(shape) - 2)).requires_grad_()
        weight = (1 + 0.3 * torch.randn(channels, device=DEVICE)).requires_grad_()
        bias = torch.randn(channels, device=DEVICE).requires_grad_()
        given = [x, weight, bias]
        scale = shift = None
        if modulating:
            both = torch.randn(images, 2 * channels).to(DEVICE, modulating).requires_grad_()
            given.append(both)
            scale, shift = both.chunk(2, 1)
        found = silu_of_norm(x, weight, bias, scale, shift, groups=groups, eps=1e-5, silu=silu)
        assert found.dtype == kind
        assert found.stride() == x.stride()
        upstream = torch.randn(shape).to(DEVICE, kind)
        gradients = torch.autograd.grad(found, given, upstream)
        exact = [v.detach().double().requires_grad_() for v in given]
        true = reference(exact[0], exact[1], exact[2], (*exact, None)[3], groups, silu)
        for ours, theirs in zip(
            (found, *gradients),
            (true, *torch.autograd.grad(true, exact, upstream.double())),
            strict=True,
        ):
            error = (ours.detach().double() - theirs.detach()).norm() / theirs.detach().norm()
            assert float(error) < CLOSE[ours.dtype]


@pytest.mark.parametrize("ratio", [1, 10, 100, 1000])
@pytest.mark.parametrize("shape", [(2, 32, 16, 16), (1, 16, 12, 12, 12)])
def test_a_large_mean_costs_no_more_than_rounding(shape: tuple[int, ...], ratio: int) -> None:
    """``ratio`` standard deviations: what x itself is rounded by, and not its square, bounds the error."""
    from radiffuse.nets.triton_norm import silu_of_norm

    torch.manual_seed(0)
    x = torch.randn(shape)
    x += ratio + torch.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2)) / 8
    x[..., 0] += 3  # the border differs where zeros are beyond it
    x = x.to(DEVICE).contiguous(memory_format=channels_last(len(shape) - 2)).requires_grad_()
    exact, upstream = x.detach().double().requires_grad_(), torch.randn(shape).to(DEVICE)
    weight, bias = torch.ones(shape[1], device=DEVICE), torch.zeros(shape[1], device=DEVICE)
    found = silu_of_norm(x, weight, bias, None, None, groups=8, eps=1e-5, silu=False)
    true = F.group_norm(exact, 8)
    (slope,) = torch.autograd.grad(found, x, upstream)
    (true_slope,) = torch.autograd.grad(true, exact, upstream)
    for ours, theirs in ((found, true), (slope, true_slope)):
        error = (ours.detach().double() - theirs.detach()).norm() / theirs.detach().norm()
        assert float(error) < 2e-7 * max(3, ratio)


@pytest.mark.parametrize("wrapped", ["checkpoint", "inference", "kept elsewhere"])
def test_the_first_pass_of_a_process_may_be_one_of_any_kind(wrapped: str) -> None:
    """Kernels are tried within it: what checkpointing counts, or inference mode forbids, must not reach that."""
    from radiffuse.nets.triton_norm import silu_of_norm

    norm._triton_works.cache_clear()
    x = torch.randn(2, 32, 6, 5, device=DEVICE).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, 32, device=DEVICE)

    def first(x: Tensor) -> Tensor:
        assert norm._triton_works(x.device)
        return silu_of_norm(x, weight, bias, None, None, groups=8, eps=1e-5, silu=True)

    if wrapped == "inference":
        with torch.inference_mode():
            found = first(x)
        assert torch.allclose(found, reference(x, weight, bias, None, 8, True), atol=1e-5)
        return
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    with save_on_cpu() if wrapped == "kept elsewhere" else nullcontext():
        checkpointed = wrapped == "checkpoint"
        found = checkpoint(first, ours, use_reentrant=False) if checkpointed else first(ours)
    found.backward(x)
    reference(theirs, weight, bias, None, 8, True).backward(x)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_a_full_card_is_not_taken_for_one_whose_kernels_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*given: object, **named: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    norm._triton_works.cache_clear()
    with monkeypatch.context() as here:
        here.setattr("radiffuse.nets.triton_norm.silu_of_norm", full)
        with pytest.raises(torch.OutOfMemoryError):
            norm._triton_works(torch.device(DEVICE))
    assert norm._triton_works(torch.device(DEVICE))


def test_a_card_whose_kernels_fail_or_err_takes_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = torch.device(DEVICE)
    norm._triton_works.cache_clear()
    assert norm._triton_works(device)
    for broken in (lambda *given, **named: given[0], lambda *given, **named: 1 / 0):
        norm._triton_works.cache_clear()
        monkeypatch.setattr("radiffuse.nets.triton_norm.silu_of_norm", broken)
        assert not norm._triton_works(device)
        assert "torch's slower kernels normalize" in capsys.readouterr().err
    norm._triton_works.cache_clear()
