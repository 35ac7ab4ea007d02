"""Sampling of training timesteps: all alike, or more of those of a large loss, of the low ones, of the middle."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..config import Diffusion

UNIFORM_SHARE = 0.01
"""Part of the probability of loss-aware timesteps that is uniform, so that every timestep keeps being drawn."""


class TimestepSampler(nn.Module, ABC):
    """Draws training timesteps, with the weights of their losses."""

    def __init__(self, num_train_timesteps: int) -> None:
        super().__init__()
        self.num_train_timesteps = num_train_timesteps

    @abstractmethod
    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps and loss weights, on the generator's device.

        Args:
            batch: B, how many to draw.
            generator: Source of randomness.

        Returns:
            t, (B,) int64 in 0 to T - 1, and weights, (B,) float32: 1 / (T p(t)), which keep the
            mean loss unbiased, or 1, by which what is drawn more often counts for more.
        """

    def remark(self, batch: int | None, steps: int | None) -> str:
        """What a person should know who trains so many ``steps`` of ``batch`` images; None: not decided yet."""
        return ""

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Learn from the losses that were seen.

        Args:
            t: (B,) int64, the timesteps that were trained.
            losses: (B,), their losses before the weight of ``draw``.
        """


class UniformTimesteps(TimestepSampler):
    """All timesteps are equally likely."""

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Uniform timesteps, all of weight 1. See the base class."""
        device = generator.device
        t = torch.randint(self.num_train_timesteps, (batch,), generator=generator, device=device)
        return t, torch.ones(batch, device=device)


class LowTimesteps(TimestepSampler):
    """More of the low timesteps, whose features show details: t = floor(T u^power), u uniform in [0, 1) [ours].

    P(t < s) = (s / T)^(1 / power), so with a power of 2 and T = 300 t <= 10 is drawn in 19 % of all cases, not in 4 %.
    No weights undo it: the network is to learn more of these timesteps.

    Args:
        num_train_timesteps: T.
        power: 1 is uniform.
    """

    def __init__(self, num_train_timesteps: int, power: float) -> None:
        super().__init__(num_train_timesteps)
        self.power = power

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Low timesteps more often, all of weight 1. See the base class."""
        device = generator.device
        u = torch.rand(batch, generator=generator, device=device)
        t = (u**self.power * self.num_train_timesteps).long()
        return t.clamp(max=self.num_train_timesteps - 1), torch.ones(batch, device=device)


class LogitNormalTimesteps(TimestepSampler):
    """More of the timesteps in the middle: t = floor(T u), logit u standard normal (Esser et al. 2024, eq. 19).

    P(t < s) = Phi(log(s / (T - s))): half of them lie between .34 and .66 of T. No weights undo it.
    """

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps in the middle more often, all of weight 1. See the base class."""
        device = generator.device
        u = torch.randn(batch, generator=generator, device=device).sigmoid()
        t = (u * self.num_train_timesteps).long()
        return t.clamp(max=self.num_train_timesteps - 1), torch.ones(batch, device=device)


class LossAwareTimesteps(TimestepSampler):
    """Timesteps in proportion to the root mean square of their last losses.

    Nichol and Dhariwal 2021, eq. 18. Uniform until every timestep has ``history_per_timestep``
    losses. The history is in ``state_dict``, so a resumed run draws the same. With several processes, call ``update``
    with the losses of all of them, so that their histories are equal.

    Args:
        num_train_timesteps: T.
        history_per_timestep: Losses remembered for each timestep; the paper's 10.
    """

    history: Tensor
    """(T, history_per_timestep) float32: the last losses, as a ring."""
    counts: Tensor
    """(T,) int64: losses seen so far."""

    def __init__(self, num_train_timesteps: int, *, history_per_timestep: int = 10) -> None:
        super().__init__(num_train_timesteps)
        self._drawn: tuple[int, Tensor] | None = None
        self.register_buffer("history", torch.zeros(num_train_timesteps, history_per_timestep))
        self.register_buffer("counts", torch.zeros(num_train_timesteps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """p(t): (T,) float64 on the CPU, sums to 1."""
        total = self.num_train_timesteps
        uniform = torch.full((total,), 1 / total, dtype=torch.float64, device="cpu")
        if bool((self.counts < self.history.shape[1]).any()):
            return uniform
        root = self.history.cpu().double().square().mean(dim=1).sqrt()
        if float(root.sum()) == 0:
            return uniform
        return (1 - UNIFORM_SHARE) * root / root.sum() + UNIFORM_SHARE * uniform

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps by importance, with weights 1 / (T p). See the base class.

        Generators of the same seed draw from the same probabilities, even after an ``update``: the passes of one step
        together draw what a single pass would.
        """
        if self._drawn is None or self._drawn[0] != generator.initial_seed():
            self._drawn = (generator.initial_seed(), self.probabilities())
        p = self._drawn[1]
        device = generator.device
        if device.type == "cpu":
            t = torch.multinomial(p.float(), batch, replacement=True, generator=generator)
        else:  # there it adds up in no fixed order, and is refused where one is asked for
            t = chosen_by(p, torch.rand(batch, generator=generator, device=device))
        weights = 1 / (self.num_train_timesteps * p)
        return t, weights.float().to(device)[t]

    def losses_needed(self) -> int:
        """Losses after which the sampler is active in half of all trainings: (P(Poisson(n / T) >= 10))^T = 1/2.

        Drawn n times, the counts of the timesteps are as good as independent Poisson numbers of mean n / T.
        """
        total, need = self.history.shape
        low, high = 0.0, 100.0 * need + 100 * math.log(total)
        while high - low > 1e-6 * high:
            mean = (low + high) / 2
            few = sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(need))
            low, high = (mean, high) if (1 - few) ** total < 0.5 else (low, mean)
        return math.ceil(high * total)

    def remark(self, batch: int | None, steps: int | None) -> str:
        """After how many losses and steps the sampler becomes active. See the base class."""
        needed = self.losses_needed()
        text = f"loss-aware timesteps are uniform until every timestep has {self.history.shape[1]} losses"
        text += f", which takes about {needed:,} losses"
        if batch is None:
            return text
        first = math.ceil(needed / batch)
        text += f", {first} steps of {batch}"
        short = steps is not None and steps < first
        return f"{text}: they will not become active in {steps} steps" if short else text

    @torch.no_grad()
    def update(self, t: Tensor, losses: Tensor) -> None:
        """Remember the losses, all of them where a timestep occurs twice. See the base class."""
        for timestep, loss in zip(t.tolist(), losses.tolist(), strict=True):
            place = int(self.counts[timestep]) % self.history.shape[1]
            self.history[timestep, place] = loss
            self.counts[timestep] += 1


def chosen_by(p: Tensor, keys: Tensor) -> Tensor:
    """Numbers with the probabilities ``p``, (T,) float64 on the CPU, for uniform keys in [0, 1) on any device.

    Bounds are float32: some accelerators have no float64.
    """
    bounds = p.cumsum(0).float().to(keys.device)
    return torch.searchsorted(bounds, keys, right=True).clamp(max=len(p) - 1)


def timestep_sampler(config: Diffusion) -> TimestepSampler:
    """The sampler that the settings name."""
    if config.timestep_sampling == "loss-aware":
        return LossAwareTimesteps(config.num_train_timesteps)
    if config.timestep_sampling == "low":
        return LowTimesteps(config.num_train_timesteps, config.timestep_power)
    if config.timestep_sampling == "logit-normal":
        return LogitNormalTimesteps(config.num_train_timesteps)
    return UniformTimesteps(config.num_train_timesteps)
