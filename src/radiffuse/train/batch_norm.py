"""Batch normalization of processes that train together, as one process would do it."""

from __future__ import annotations

from torch import Tensor, nn

from ..system.distributed import mean_over_ranks, world_size


def share_statistics(network: nn.Module) -> None:
    """Let batch normalization see the batch of all processes that train together, as one process would.

    ``torch.nn.SyncBatchNorm`` does it on GPUs alone. The layers keep their parameters, buffers and names.
    """
    if world_size() > 1:
        for module in network.modules():
            if type(module) in _SHARED:
                module.__class__ = _SHARED[type(module)]


def keep_own_statistics(network: nn.Module) -> None:
    """Undo ``share_statistics``."""
    own = {shared: kind for kind, shared in _SHARED.items()}
    for module in network.modules():
        if type(module) in own:
            module.__class__ = own[type(module)]


class _SharedStatistics(nn.modules.batchnorm._BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to the same shape; moments over B, S and all processes."""
        if not self.training:
            return super().forward(x)
        axes = (0, *range(2, x.ndim))
        values = x.float()
        shape = (1, -1, *(1,) * (x.ndim - 2))
        mean = mean_over_ranks(values.mean(axes))
        values = values - mean.reshape(shape)
        variance = mean_over_ranks(values.square().mean(axes))
        if self.running_mean is not None and self.running_var is not None:
            self._remember(mean.detach(), variance.detach(), world_size() * x.numel() // x.shape[1])
        slope = (variance + self.eps).rsqrt()
        slope = slope if self.weight is None else slope * self.weight
        h = values * slope.reshape(shape)
        return (h if self.bias is None else h + self.bias.reshape(shape)).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / max(1, count - 1), self.momentum)


class _Shared1d(_SharedStatistics, nn.BatchNorm1d):
    pass


class _Shared2d(_SharedStatistics, nn.BatchNorm2d):
    pass


class _Shared3d(_SharedStatistics, nn.BatchNorm3d):
    pass


_SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Shared1d,
    nn.BatchNorm2d: _Shared2d,
    nn.BatchNorm3d: _Shared3d,
}
