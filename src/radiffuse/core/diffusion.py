"""The forward process, what a network's output means, and the training loss.

x_t = alpha x_start + sigma noise. In the notation of Ho et al. 2020, alpha = sqrt(a) and sigma = sqrt(1 - a), a =
alphas_cumprod[t]; of a flow (Lipman et al. 2023, Liu et al. 2023) alpha = 1 - s and sigma = s, s = (t + 1) / T.
Images lie in [-1, 1], tensors are (B, C, *spatial), timesteps are (B,) int64 in 0 to T - 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Diffusion
from ..errors import InputError
from . import schedules
from .axes import expand
from .gaussian import discretized_log_likelihood, interpolate_log_variance, normal_kl

VARIATIONAL_WEIGHT = 0.001
"""Weight of the variational bound in the hybrid loss (Nichol and Dhariwal 2021, section 3.1)."""


@dataclass(frozen=True)
class Prediction:
    """A prediction from x_t in its three equivalent forms, each shaped like x_t."""

    x_start: Tensor
    """The clean image."""
    epsilon: Tensor
    """The noise."""
    v: Tensor
    """The velocity, sqrt(a) noise - sqrt(1 - a) x_start (Salimans and Ho 2022); of a flow, noise - x_start."""


@dataclass(frozen=True)
class Posterior:
    """q(x_previous | x_t, x_start) between any two timesteps, in float64.

    Ho et al. 2020, eq. 6 and 7; for any alpha and sigma Kingma et al. 2021, appendix A. Its mean is
    ``x_start_coefficient`` x_start + ``x_t_coefficient`` x_t.
    """

    beta: float
    """Variance of the noise added between the two timesteps, 1 - a_t / a_previous unless of a flow."""
    variance: float
    """Variance of the posterior; 0 where the previous image is the clean one."""
    x_start_coefficient: float
    """Weight of x_start in the mean."""
    x_t_coefficient: float
    """Weight of x_t in the mean."""


class GaussianDiffusion(nn.Module):
    """A noising process, and the meaning of its network's output.

    Tables are computed in float64 and kept as constant, non-persistent buffers: they follow ``.to(device)`` and are not
    part of a checkpoint. ``.double()`` does not restore the digits that another ``dtype`` lost.

    Args:
        config: Schedule, T, prediction type, variance and loss.
        dtype: Precision of the tables.

    Raises:
        InputError: An illegal schedule, or one that ends in pure noise with prediction type ``epsilon``, from which the
            image cannot be recovered at the last timestep.
    """

    alphas_cumprod: Tensor
    alpha: Tensor
    sigma: Tensor
    alpha_slope: Tensor
    sigma_slope: Tensor
    loss_weight: Tensor
    log_beta: Tensor
    posterior_log_variance: Tensor
    posterior_x_start: Tensor
    posterior_x_t: Tensor

    def __init__(self, config: Diffusion, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.flows = config, config.schedule == "flow"
        if (config.zero_terminal_snr or self.flows) and config.prediction_type == "epsilon":
            name = "the schedule flow" if self.flows else "zero_terminal_snr"
            other = "choose another schedule" if self.flows else "turn zero_terminal_snr off"
            raise InputError(
                "prediction_type",
                f"epsilon says nothing about the image at the last timestep of {name}",
                f"use prediction_type v or x_start, or {other}",
            )
        self.num_train_timesteps = config.num_train_timesteps
        signal, noise = _variances(config)
        # Python floats stay float64 wherever the buffers go: few-step samplers need exact values.
        self._variances: tuple[tuple[float, float], ...] = tuple(
            zip(signal.tolist(), noise.tolist(), strict=True)
        )
        steps = [self.posterior(t, t - 1) for t in range(self.num_train_timesteps)]
        # Of a schedule of betas, the betas themselves, which have more digits.
        added = torch.tensor([step.beta for step in steps], dtype=torch.float64)
        betas = added if self.flows else betas_of(config)
        variance = torch.tensor([step.variance for step in steps], dtype=torch.float64)
        # The posterior of the last step has variance 0; the paper's code takes that of the step before.
        variance[0] = variance[1]
        alpha, sigma = signal.sqrt(), noise.sqrt()
        tables = {
            "alphas_cumprod": signal,
            "alpha": alpha,
            "sigma": sigma,
            # Along the path of an image: by the angle whose cosine is alpha; of a flow, by its time.
            "alpha_slope": -torch.ones_like(alpha) if self.flows else -sigma,
            "sigma_slope": torch.ones_like(sigma) if self.flows else alpha.clone(),
            "loss_weight": schedules.min_snr_weight(
                signal, noise, config.prediction_type, config.min_snr_gamma
            ),
            "log_beta": betas.log(),
            "posterior_log_variance": variance.log(),
            "posterior_x_start": torch.tensor(
                [s.x_start_coefficient for s in steps], dtype=torch.float64
            ),
            "posterior_x_t": torch.tensor([s.x_t_coefficient for s in steps], dtype=torch.float64),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.to(dtype), persistent=False)

    # ------------------------------------------------------------------------------ forward process

    def signal(self, t: int) -> float:
        """alphas_cumprod, the variance of the signal, at one timestep in float64; 1 at t = -1, the clean image."""
        return self.variances(t)[0]

    def variances(self, t: int) -> tuple[float, float]:
        """Variances of signal and noise, alpha^2 and sigma^2, at one timestep in float64; 1 and 0 at t = -1."""
        if not -1 <= t < self.num_train_timesteps:
            raise ValueError(f"t = {t} is not in -1 to {self.num_train_timesteps - 1}")
        return (1.0, 0.0) if t == -1 else self._variances[t]

    def posterior(self, t: int, t_previous: int) -> Posterior:
        """The exact reverse step from t to an earlier timestep, given x_start.

        Args:
            t: 0 to T - 1.
            t_previous: -1 (the clean image) to t - 1.

        Raises:
            ValueError: Timesteps out of range or out of order.
        """
        if not -1 <= t_previous < t:
            raise ValueError(f"t_previous = {t_previous} is not in -1 to {t - 1}")
        (signal, noise), (signal_previous, noise_previous) = map(self.variances, (t, t_previous))
        alpha = signal / signal_previous
        # Where signal and noise add up to 1, both are equal, and the second has more digits.
        beta = noise - alpha * noise_previous if self.flows else 1 - alpha
        return Posterior(
            beta=beta,
            variance=beta * noise_previous / noise,
            x_start_coefficient=math.sqrt(signal_previous) * beta / noise,
            x_t_coefficient=math.sqrt(alpha) * noise_previous / noise,
        )

    def add_noise(self, x_start: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, a draw of q(x_t | x_start) (Ho et al. 2020, eq. 4).

        Args:
            x_start: (B, C, *spatial), in [-1, 1].
            noise: Standard normal, shaped like ``x_start``.
            t: (B,) int64, 0 to T - 1.
        """
        return expand(self.alpha[t], x_start) * x_start + expand(self.sigma[t], x_start) * noise

    def velocity(self, x_start: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Velocity along the path, see ``Prediction``. Arguments as of ``add_noise``."""
        of_noise = expand(self.sigma_slope[t], noise) * noise
        return of_noise + expand(self.alpha_slope[t], x_start) * x_start

    def reverse(self, x_start: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of the posterior q(x_{t-1} | x_t, x_start), each image at its own t (Ho et al. 2020, eq. 6).

        Args:
            x_start: (B, C, *spatial), the clean image or an estimate of it.
            x_t: (B, C, *spatial).
            t: (B,) int64, 1 to T - 1.
            noise: Standard normal, shaped like ``x_t``.
        """
        mean = expand(self.posterior_x_start[t], x_t) * x_start
        mean = mean + expand(self.posterior_x_t[t], x_t) * x_t
        return mean + (0.5 * expand(self.posterior_log_variance[t], x_t)).exp() * noise

    # ---------------------------------------------------------------------------------- the network

    def target(self, x_start: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The target of the network, by prediction type. Arguments as of ``add_noise``."""
        if self.config.prediction_type == "epsilon":
            return noise
        if self.config.prediction_type == "x_start":
            return x_start
        return self.velocity(x_start, noise, t)

    def split(self, output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
        """A network's output as prediction and, for learned variance, the raw variance.

        Args:
            output: (B, channels or 2 channels, *spatial).
            channels: C, the image's channels.

        Raises:
            ValueError: Another number of channels than the variance setting implies.
        """
        expected = 2 * channels if self.config.variance == "learned" else channels
        if output.shape[1] != expected:
            raise ValueError(
                f"output has {output.shape[1]} channels; variance {self.config.variance!r} of a "
                f"{channels}-channel image needs {expected}"
            )
        if self.config.variance == "learned":
            mean, raw = output.chunk(2, dim=1)
            return mean, raw
        return output, None

    def predict(self, output: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        """All forms of a network's output; finite at alpha = 0, where epsilon is not allowed.

        Image and noise follow from x_t and v since alpha sigma' - sigma alpha' = 1 on both kinds of path.

        Args:
            output: (B, C or 2 C, *spatial), the network's output at (x_t, t).
            x_t: (B, C, *spatial).
            t: (B,) int64, 0 to T - 1.
        """
        answer = self.split(output, x_t.shape[1])[0].to(x_t.dtype)
        alpha, sigma = expand(self.alpha[t], x_t), expand(self.sigma[t], x_t)
        if self.config.prediction_type == "v":
            x_start = expand(self.sigma_slope[t], x_t) * x_t - sigma * answer
            epsilon = alpha * answer - expand(self.alpha_slope[t], x_t) * x_t
            return Prediction(x_start=x_start, epsilon=epsilon, v=answer)
        if self.config.prediction_type == "x_start":
            x_start, epsilon = answer, (x_t - alpha * answer) / sigma
        else:
            x_start, epsilon = (x_t - sigma * answer) / alpha, answer
        return Prediction(x_start, epsilon, v=self.velocity(x_start, epsilon, t))

    # ------------------------------------------------------------------------------------- the loss

    def training_loss(
        self, output: Tensor, x_start: Tensor, noise: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """Loss of each image: L_simple with min-SNR weights; plus 0.001 L_vlb if the variance is learned.

        L_vlb is estimated as T times the term at t, in bits per dimension. Its gradient reaches the
        variance but not the predicted mean (Nichol and Dhariwal 2021, section 3.1).

        Args:
            output: (B, C or 2 C, *spatial), the network's output at (x_t, t).
            x_start: (B, C, *spatial), in [-1, 1].
            noise: The noise in ``x_t``.
            x_t: ``add_noise(x_start, noise, t)``.
            t: (B,) int64, 0 to T - 1.

        Returns:
            (B,), each the mean over channels and positions.
        """
        answer, raw = self.split(output, x_t.shape[1])
        target = self.target(x_start, noise, t)
        answer = answer.to(target.dtype)
        distance = F.mse_loss if self.config.loss == "mse" else F.smooth_l1_loss
        loss = self.loss_weight[t] * _mean(distance(answer, target, reduction="none"))
        if raw is None:
            return loss
        frozen = torch.cat([answer.detach(), raw.to(target.dtype)], dim=1)
        term = self.variational_term(frozen, x_start, x_t, t)
        return loss + VARIATIONAL_WEIGHT * self.num_train_timesteps * term

    def variational_term(self, output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The term of the bound at t: KL divergence of the reverse step; at t = 0 the decoder's NLL.

        Source: Ho et al. 2020, eq. 5 and 13.

        Args:
            output: (B, C or 2 C, *spatial), the network's output at (x_t, t).
            x_start: (B, C, *spatial), 8-bit gray values in [-1, 1].
            x_t: The noised images.
            t: (B,) int64, 0 to T - 1.

        Returns:
            (B,), bits per dimension.
        """
        predicted = self.predict(output, x_t, t).x_start
        of_x_start = expand(self.posterior_x_start[t], x_t)
        of_x_t = expand(self.posterior_x_t[t], x_t)
        mean = of_x_start * predicted + of_x_t * x_t
        truth = of_x_start * x_start + of_x_t * x_t
        true_log_variance = expand(self.posterior_log_variance[t], x_t)
        log_variance = self._log_variance(output, x_t, t)
        kl = normal_kl(truth, true_log_variance, mean, log_variance)
        decoder = -discretized_log_likelihood(x_start, mean, 0.5 * log_variance)
        return torch.where(t == 0, _mean(decoder), _mean(kl)) / math.log(2)

    def _log_variance(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Log variance of the reverse step from t to t - 1, broadcastable to x_t."""
        raw = self.split(output, x_t.shape[1])[1]
        small = expand(self.posterior_log_variance[t], x_t)
        if self.config.variance == "fixed_small":
            return small
        large = expand(self.log_beta[t], x_t)
        if raw is None:
            # At t = 0 the small variance is kept, as in the papers' code.
            return torch.where(expand(t, x_t) == 0, small, large)
        return interpolate_log_variance(raw.to(x_t.dtype), small, large)


def betas_of(config: Diffusion) -> Tensor:
    """The betas of a process that is no flow, (T,) float64 on the CPU.

    Raises:
        InputError: An illegal schedule.
    """
    betas = schedules.betas(config.schedule, config.num_train_timesteps)
    if config.zero_terminal_snr:
        betas = schedules.rescale_zero_terminal_snr(betas)
    return betas if config.shift in (None, 1) else schedules.shifted(betas, config.shift)


def _variances(config: Diffusion) -> tuple[Tensor, Tensor]:
    """Variances of signal and noise, (T,) float64."""
    if config.schedule == "flow":
        time = schedules.flow_times(config.num_train_timesteps, config.shift)
        return (1 - time) ** 2, time**2
    a = schedules.alphas_cumprod(betas_of(config))
    return a, 1 - a


def _mean(x: Tensor) -> Tensor:
    """Mean over all axes but the first."""
    return x.flatten(1).mean(dim=1)
