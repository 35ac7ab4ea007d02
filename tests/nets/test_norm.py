"""The fused channels-last normalization against the plain operations it replaces."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from radiffuse import nets
from radiffuse.nets import blocks, channels_last_norm
from radiffuse.nets import norm as norm_module
from radiffuse.nets.blocks import convolution, convolved
from radiffuse.nets.channels_last_norm import prefers_pieces
from radiffuse.nets.norm import Norm

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


@pytest.fixture
def at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces are taken, and activations computed again, for small images as well."""
    monkeypatch.setattr(channels_last_norm, "MANY", {})
    monkeypatch.setattr(blocks, "RECOMPUTED", 0)


@pytest.mark.usefixtures("at_any_size")
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-3)], ids=["fp32", "bf16"]
)
def test_equals_the_plain_operations(
    dims: int, modulated: bool, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    norm = Norm(48, 32)
    with torch.no_grad():
        norm.weight.copy_(draw(48))
        norm.bias.copy_(draw(48))
    x = (draw(3, 48, *[6] * dims) * 2 + 1).to(dtype).to(memory_format=LAYOUTS[dims])
    x.requires_grad_()
    modulation = [draw(3, 48).requires_grad_() for _ in range(2)] if modulated else []
    inputs = [x, norm.weight, norm.bias, *modulation]
    upstream = draw(*x.shape)

    assert prefers_pieces(x)
    fused = norm(x, *modulation)
    assert fused.dtype == dtype
    assert fused.is_contiguous(memory_format=LAYOUTS[dims])
    found = [fused, *torch.autograd.grad(fused, inputs, upstream.to(dtype))]

    h = F.group_norm(x.float().contiguous(), 24, norm.weight, norm.bias)
    if modulated:
        scale, shift = (m.reshape(3, 48, *[1] * dims) for m in modulation)
        h = h * (1 + scale) + shift
    plain = F.silu(h)
    wanted = [plain, *torch.autograd.grad(plain, inputs, upstream.to(dtype).float())]
    for a, b in zip(found, wanted, strict=True):
        a, b = a.detach().float(), b.detach().float()
        assert float((a - b).norm() / b.norm()) < tolerance


@pytest.mark.usefixtures("at_any_size")
@pytest.mark.parametrize("ratio", [0, 1, 10, 100, 1000])
@pytest.mark.parametrize("shape", [(2, 32, 64, 64), (1, 16, 32, 32, 32)])
def test_a_large_mean_costs_no_more_than_rounding(shape: tuple[int, ...], ratio: int) -> None:
    """``ratio`` standard deviations: what x itself is rounded by, and not its square, bounds the error."""
    x, upstream = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    x += ratio + torch.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2)) / 8
    x[..., 0] += 3  # the border differs where zeros are beyond it
    x = x.to(memory_format=LAYOUTS[len(shape) - 2]).requires_grad_()
    exact = x.detach().double().requires_grad_()
    found, true = Norm(shape[1], 8, silu=False)(x), F.group_norm(exact, 8)
    (slope,) = torch.autograd.grad(found, x, upstream)
    (true_slope,) = torch.autograd.grad(true, exact, upstream)
    for ours, theirs in ((found, true), (slope, true_slope)):
        error = (ours.detach().double() - theirs.detach()).norm() / theirs.detach().norm()
        assert float(error) < 2e-7 * max(3, ratio)


@pytest.mark.parametrize("ratio", [0, 5, 20, 100, 1000])
@pytest.mark.parametrize("shape", [(2, 32, 16, 16), (1, 16, 64, 64), (1, 16, 8, 8, 8)])
def test_a_large_mean_is_exact_in_small_activations_too(shape: tuple[int, ...], ratio: int) -> None:
    """Those that torch's channels-last kernel normalizes, whose variance would be off by .1 at a ratio of 100."""
    x, upstream = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    x = (x + ratio).to(memory_format=LAYOUTS[len(shape) - 2]).requires_grad_()
    assert not prefers_pieces(x)
    exact = x.detach().double().requires_grad_()
    found, true = Norm(shape[1], 8, silu=False)(x), F.group_norm(exact, 8)
    assert found.is_contiguous(memory_format=LAYOUTS[len(shape) - 2])
    (slope,) = torch.autograd.grad(found, x, upstream)
    (true_slope,) = torch.autograd.grad(true, exact, upstream)
    for ours, theirs in ((found, true), (slope, true_slope)):
        error = (ours.detach().double() - theirs.detach()).norm() / theirs.detach().norm()
        assert float(error) < 3e-7 * max(3, ratio)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (48, 24), (31, 31), (37, 1), (3, 3)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert Norm(channels, 32).num_groups == groups


@pytest.mark.usefixtures("at_any_size")
@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize(
    ("shape", "dtype", "tolerance"),
    [
        ((2, 24, 20, 12), torch.float32, 2e-5),
        ((1, 24, 6, 10), torch.float32, 2e-5),  # a single small image takes a path of its own
        ((1, 24, 5, 6, 4), torch.float32, 2e-5),
        ((1, 24, 5, 3, 3), torch.float32, 2e-5),
        ((2, 128, 40, 40), torch.float32, 5e-5),  # several blocks per image
        ((2, 24, 4, 6, 8), torch.bfloat16, 2e-2),
    ],
)
def test_norm_into_a_convolution_equals_both(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, modulated: bool
) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    dims, channels = len(shape) - 2, shape[1]
    norm, convolve = Norm(channels, 8), convolution(dims, channels, 16, 3).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(draw(channels))
        norm.bias.copy_(draw(channels))
    convolve = convolve.to(memory_format=LAYOUTS[dims])  # type: ignore[call-overload]
    x = (draw(*shape) + 1).to(dtype).to(memory_format=LAYOUTS[dims]).requires_grad_()
    modulation = [draw(shape[0], channels).requires_grad_() for _ in range(2)] if modulated else []
    inputs = [x, *norm.parameters(), *convolve.parameters(), *modulation]
    upstream = draw(shape[0], 16, *shape[2:]).to(dtype)

    found = [
        y := convolved(norm, convolve, x, *modulation),
        *torch.autograd.grad(y, inputs, upstream),
    ]
    h = F.group_norm(x.float().contiguous(), 8, norm.weight, norm.bias)
    if modulated:
        scale, shift = (m.reshape(shape[0], channels, *[1] * dims) for m in modulation)
        h = h * (1 + scale) + shift
    plain = F.conv2d if dims == 2 else F.conv3d
    y = plain(F.silu(h), convolve.weight.float(), convolve.bias.float(), padding=1)  # type: ignore[union-attr]
    wanted = [y, *torch.autograd.grad(y, inputs, upstream.float())]
    for a, b in zip(found, wanted, strict=True):
        a, b = a.detach().double(), b.detach().double()
        assert float((a - b).norm() / b.norm()) < tolerance


@pytest.mark.usefixtures("at_any_size")
@pytest.mark.parametrize("dims", [2, 3])
def test_a_norm_keeps_its_input_alone_and_a_volume_nothing_more(dims: int) -> None:
    x = torch.randn(2, 32, *[8] * dims).to(memory_format=LAYOUTS[dims]).requires_grad_()
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        result = convolved(Norm(32, 8), convolution(dims, 32, 32, 3), x)
    large = {t.data_ptr() for t in kept if t.shape == x.shape}
    assert result.requires_grad
    assert len(large - {x.data_ptr()}) == (1 if dims == 2 else 0)  # of films what the layer reads


@pytest.mark.parametrize(
    ("side", "dtype", "summed"),
    [(64, torch.float32, False), (66, torch.float32, True), (46, torch.bfloat16, True)],
)
def test_small_images_take_the_native_kernel(side: int, dtype: torch.dtype, summed: bool) -> None:
    x = torch.empty(1, 32, side, side, dtype=dtype).to(memory_format=torch.channels_last)
    x.requires_grad_()
    assert prefers_pieces(x) is summed
    assert not prefers_pieces(x.contiguous())


def test_whose_kernels_normalized_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Norm(32, 8), torch.randn(2, 32, 48, 48)
    last = x.to(memory_format=torch.channels_last)
    kernels = SimpleNamespace(silu_of_norm=lambda x, *rest, **named: x)
    monkeypatch.setattr(nets, "triton_norm", kernels, raising=False)
    found = []
    for given, preferred in ((x, False), (last, False), (x, True)):
        monkeypatch.setattr(norm_module, "prefers_triton", lambda x, is_so=preferred: is_so)
        norm_module.USED.clear()
        layer(given)
        found.append(set(norm_module.USED))
    assert found == [{"torch"}, {"pieces"}, {"triton"}]


@pytest.mark.parametrize("dims", [2, 3])
def test_weights_learn_from_what_a_frozen_layer_gives(dims: int) -> None:
    """There the native backward pass of torch 2.13 ends the process."""
    x = torch.randn(2, 16, *[8] * dims).to(memory_format=LAYOUTS[dims])
    norm = Norm(16, 4)
    norm(x).square().sum().backward()
    found = [p.grad for p in norm.parameters()]
    weight, bias = (p.detach().clone().requires_grad_() for p in norm.parameters())
    F.silu(F.group_norm(x.contiguous(), 4, weight, bias)).square().sum().backward()
    torch.testing.assert_close(found, [weight.grad, bias.grad], rtol=1e-4, atol=1e-4)
