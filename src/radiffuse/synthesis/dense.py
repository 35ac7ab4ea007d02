"""Features of every place of a film, by frozen networks: what segments without labels are clustered from.

A source turns one film into ``(F, h, w)``: the decoder of a denoiser of pixels or of latents at a low timestep,
averaged over several noises (Baranchuk et al. 2022, who learn from such features with labels), or the patch tokens of
an encoder. A volume is seen window by window, and beside its features may stand body coordinates of the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Diffusion, ZeroShot
from ..config.given import refuse_given
from ..core.diffusion import GaussianDiffusion
from ..errors import InputError
from ..nets.frozen import noised_features
from ..nets.guided import GuidedUNet
from ..nets.probe import resize
from ..nets.unet import UNet
from ..objectives import learned_from_noise
from ..train.run import Run
from ..train.start import diffusion_of, load_denoiser
from .synthesizer import Synthesizer

Dense = Callable[[Tensor], Tensor]
"""A film ``(C, rows, columns)`` in [-1, 1], on the network's device, to features ``(F, h, w)``."""
SIDE = 16
"""Places along an axis, to which the level that is taken by default comes nearest. [ours]"""


def open_denoiser(run: Run, settings: ZeroShot, device: torch.device) -> Dense:
    """The decoder of a pre-trained denoiser of films.

    Raises:
        InputError: The run has no denoiser, or one of volumes or patches; or there is no such level or timestep.
    """
    unet, plan = load_denoiser(run).to(device).eval(), run.plan
    if plan.spatial_dims != 2:
        raise InputError(run.folder, "was trained on volumes", "Give a denoiser of films")
    if settings.features == "encoder":
        problem = f"{run.folder} is a denoiser and has no encoder"
        raise InputError("--features encoder", problem, "Give a run of radiffuse synthesize")
    sizes = [plan.size[0] // factor[0] for factor in unet.config.factors]
    tap = f"level.{chosen_level(settings.level, sizes, str(run.folder))}"
    if not learned_from_noise(run):
        why = f"{run.folder} knows no timesteps"
        refuse_given(settings, ZeroShot(), "timestep noises", why)
        return lambda film: _decoded(unet, film, film[None], _steps(0, 1, film), tap)[0]
    process = diffusion_of(run)
    noised = _noised(process, settings)

    def dense(film: Tensor) -> Tensor:
        x_t, t = noised(film)
        return _decoded(unet, film, x_t, t, tap).mean(0)

    return dense


@dataclass(frozen=True)
class DenseWindows:
    """Features of volumes, window by window.

    Attributes:
        of: A window ``(1, C, *window)`` in [-1, 1] to ``(1, F, *w)``, on the network's device.
        coordinates: The last of the F that are body coordinates.
    """

    of: Callable[[Tensor], Tensor]
    coordinates: int = 0


def open_volumes(run: Run, settings: ZeroShot, device: torch.device) -> DenseWindows:
    """The decoder of a pre-trained denoiser of volumes, and the coordinates that guide it; by default its finest level.

    Every window of every volume gets the same noises.

    Raises:
        InputError: There is no such level or timestep, or coordinates are asked for and none guide the run.
    """
    unet, name = load_denoiser(run).to(device).eval(), str(run.folder)
    if settings.features == "encoder":
        remedy = "Leave it out: films alone have a DINO encoder"
        raise InputError("--features encoder", f"{name} was trained on volumes", remedy)
    sizes = [run.plan.size[0] // factor[0] for factor in unet.config.factors]
    tap = f"level.{chosen_level(settings.level or 0, sizes, name)}"
    process = None
    if learned_from_noise(run):
        process = GaussianDiffusion(diffusion_of(run))
        _verify_timestep(settings.timestep, process.num_train_timesteps)
    else:
        why = f"{name} knows no timesteps"
        refuse_given(settings, ZeroShot(), "timestep noises", why)
    guided = isinstance(unet, GuidedUNet)
    if not guided:
        why = f"{name} was trained without --coordinates"
        refuse_given(settings, ZeroShot(), "coordinates", why, obeyed=ZeroShot(coordinates=0))

    def of(window: Tensor) -> Tensor:
        where = unet.coordinates(window) if isinstance(unet, GuidedUNet) else None
        timestep, draws = (settings.timestep, settings.noises) if process else (0, 1)
        features = noised_features(
            unet, process, window, timestep, (tap,), seed=settings.seed, draws=draws, where=where
        )[tap]
        if where is None or not settings.coordinates:
            return features
        return torch.cat([features, resize(where.float(), features.shape[2:])], dim=1)

    return DenseWindows(of, 3 if guided and settings.coordinates else 0)


def open_synthesizer(synthesizer: Synthesizer, run: Run, settings: ZeroShot) -> Dense:
    """The patch tokens of the encoder of a synthesizer, or the decoder of its denoiser of latents.

    Raises:
        InputError: There is no such level or timestep.
    """
    encoder, autoencoder = synthesizer.encoder, synthesizer.autoencoder
    if settings.features == "encoder":
        return lambda film: encoder.patches(film[None])[0]
    unet: Any = synthesizer.denoiser.eval().unet
    side = run.plan.size[0] // autoencoder.factor
    sizes = [side // 2**k for k in range(len(unet.up_blocks))]
    block = unet.up_blocks[-1 - chosen_level(settings.level, sizes, str(run.folder))]
    layer = list(getattr(block, "attentions", block.resnets))[-1]
    noised = _noised(synthesizer.diffusion, settings)

    @torch.no_grad()
    def dense(film: Tensor) -> Tensor:
        latents = autoencoder.encode(film[None])[0, : autoencoder.latent_channels]
        x_t, t = noised(latents)
        context = encoder(film[None]).expand(len(x_t), -1)
        return _watched(layer, lambda: synthesizer.denoiser(x_t, t, context)).mean(0)

    return dense


def chosen_level(level: int | None, sizes: Sequence[int], name: str) -> int:
    """A level of a decoder, 0 the finest, whose grids have ``sizes`` places along an axis; None: nearest to ``SIDE``.

    Raises:
        InputError: There is no such level.
    """
    if level is None:
        return min(range(len(sizes)), key=lambda k: abs(sizes[k] - SIDE))
    if level >= len(sizes):
        raise InputError(f"--level {level}", f"{name} has {len(sizes)}", "They count from 0")
    return level


def _noised(process: Diffusion, settings: ZeroShot) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A clean ``(C, *S)`` at the timestep of the settings, with each of the noises, and the timesteps.

    Every film gets the same noises, so that its features do not depend on the others.
    """
    diffusion = GaussianDiffusion(process)
    _verify_timestep(settings.timestep, process.num_train_timesteps)

    def noised(clean: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(settings.seed)
        noise = torch.randn((settings.noises, *clean.shape), generator=generator).to(clean.device)
        t = _steps(settings.timestep, settings.noises, clean)
        return diffusion.to(clean.device).add_noise(clean.expand_as(noise), noise, t), t

    return noised


def _verify_timestep(timestep: int, total: int) -> None:
    if timestep >= total:
        problem = f"the run was trained on {total} timesteps"
        raise InputError(f"--timestep {timestep}", problem, "They count from 0")


def _steps(timestep: int, number: int, like: Tensor) -> Tensor:
    return torch.full((number,), timestep, dtype=torch.int64, device=like.device)


@torch.no_grad()
def _decoded(unet: UNet, film: Tensor, x_t: Tensor, t: Tensor, tap: str) -> Tensor:
    guide = {"clean": film.expand_as(x_t)} if isinstance(unet, GuidedUNet) else {}
    return unet.features(x_t, t, (tap,), **guide)[tap].float()


def _watched(layer: nn.Module, run: Callable[[], object]) -> Tensor:
    """What a layer gives while something runs."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    handle = layer.register_forward_hook(keep)
    try:
        run()
    finally:
        handle.remove()
    return seen[-1].float()
