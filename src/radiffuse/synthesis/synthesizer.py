"""A synthesizer on disk: a folder that ``DiffusionPipeline.from_pretrained`` of diffusers loads, and a little more.

unet/, vae/, scheduler/          the layout of Stable Diffusion
tokenizer/, text_encoder/        map any text to the null token, since Stable Diffusion's pipeline needs both
encoder/                         the DINO encoder, for transformers
density.safetensors, .json       densities of the training embeddings, by class
config.json                      written last
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from ..config import Diffusion
from ..config.values import from_dict
from ..core.diffusion import betas_of
from ..core.finite import not_finite
from ..core.sampling import image_spacing
from ..errors import InputError, RunError, first_line
from ..nets.encoder import Encoder, load_encoder, save_encoder
from ..nets.hub import forget_paths, hush, read_diffusers
from ..system.files import read_json, seal, verify_sums, whole_folder, write_atomic, write_json
from ..train.edited import REMEDY
from ..train.run import Run
from .autoencoder import Autoencoder
from .denoiser import ConditionalDenoiser
from .strategies import Density

KIND = "synthesizer"
LATENTS = 8
"""Sides of films are multiples of it, since pipelines of diffusers sample no others."""
SCHEDULES = {
    "linear": ("linear", 1e-4, 0.02),
    "scaled-linear": ("scaled_linear", 0.00085, 0.012),
    "cosine": ("squaredcos_cap_v2", 1e-4, 0.02),
}
PREDICTIONS = {"epsilon": "epsilon", "x_start": "sample", "v": "v_prediction"}


class _Entry(TypedDict):
    """A class in density.json."""

    name: str
    images: int


@dataclass(frozen=True)
class Synthesizer:
    """The networks, with averaged weights, and what else sampling needs.

    Densities of the training embeddings, and numbers of training images, are by class; '' where there are no classes.
    """

    denoiser: ConditionalDenoiser
    autoencoder: Autoencoder
    encoder: Encoder
    diffusion: Diffusion
    densities: Mapping[str, Density]
    counts: Mapping[str, int]

    def to(self, device: torch.device) -> Synthesizer:
        """The same, moved."""
        for network in (self.denoiser, self.autoencoder, self.encoder):
            network.to(device)
        return self


def scheduler_of(diffusion: Diffusion) -> Any:
    """The noising process as a scheduler of diffusers: DDIM, or for a flow DPM-Solver++, which does without betas."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    if diffusion.schedule != "flow":
        return DDIMScheduler(clip_sample=False, **scheduler_settings(diffusion))
    return DPMSolverMultistepScheduler(
        num_train_timesteps=diffusion.num_train_timesteps,
        prediction_type={"v": "flow_prediction", "x_start": "sample"}[diffusion.prediction_type],
        use_flow_sigmas=True,
        flow_shift=diffusion.shift or 1.0,
        steps_offset=1,  # means nothing here; pipelines warn of another value
        final_sigmas_type="zero",
    )


def scheduler_settings(diffusion: Diffusion) -> dict[str, Any]:
    """A noising process that is no flow as settings of the schedulers of diffusers."""
    schedule, first, last = SCHEDULES[diffusion.schedule]
    # The schedulers know no shift, but any betas.
    own = {} if diffusion.shift is None else {"trained_betas": betas_of(diffusion).tolist()}
    return own | {
        "num_train_timesteps": diffusion.num_train_timesteps,
        "beta_schedule": schedule,
        "beta_start": first,
        "beta_end": last,
        "prediction_type": PREDICTIONS[diffusion.prediction_type],
        "rescale_betas_zero_snr": diffusion.zero_terminal_snr,
        "timestep_spacing": image_spacing(diffusion.prediction_type),
        "steps_offset": 1,
    }


def save_synthesizer(synthesizer: Synthesizer, folder: Path) -> None:
    """Write the folder; ``config.json`` last, since it marks the model as complete."""
    hush()
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import save

    (folder / "config.json").unlink(missing_ok=True)
    with whole_folder(folder) as partial:
        tokenizer, text_encoder = _null_text(synthesizer.denoiser.width, partial / "tokenizer")
        pipeline = StableDiffusionPipeline(
            vae=synthesizer.autoencoder.vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=synthesizer.denoiser.unet,
            scheduler=scheduler_of(synthesizer.diffusion),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(partial)
        forget_paths(partial)
        save_encoder(synthesizer.encoder, partial / "encoder")
        names = list(synthesizer.densities)
        tensors = {
            f"{i}.{part}": value.contiguous()
            for i, name in enumerate(names)
            for part, value in synthesizer.densities[name].tensors().items()
        }
        write_atomic(partial / "density.safetensors", save(tensors))
        write_json(
            partial / "density.json",
            {"classes": [{"name": n, "images": synthesizer.counts[n]} for n in names]},
        )
    config = {"kind": KIND, "diffusion": dataclasses.asdict(synthesizer.diffusion)}
    seal(folder, "config.json", config)


def is_synthesizer(folder: Path) -> bool:
    """Whether ``model/`` of a run holds a synthesizer."""
    return bool(read_json(folder / "config.json", dict[str, Any]).get("kind") == KIND)


def synthesizer_of(run: Run) -> Synthesizer:
    """The synthesizer of a run, whose plan may have been edited.

    Raises:
        RunError: As ``load_synthesizer``; or the plan is for volumes, or for a size that latents are not cut to.
    """
    plan, path = run.plan, run.folder / "plan.json"
    if plan.spatial_dims != 2:
        raise RunError(path, "is for 3D images, and synthesizers draw films", REMEDY)
    found = load_synthesizer(run.model, len(plan.channels))
    if any(n % (by := max(LATENTS, found.autoencoder.factor)) for n in plan.size):
        size = "x".join(map(str, plan.size))
        raise RunError(path, f"has size {size}, the synthesizer takes multiples of {by}", REMEDY)
    return found


def load_synthesizer(folder: Path, channels: int) -> Synthesizer:
    """Read a synthesizer of images of so many channels, on the CPU and in evaluation mode.

    Raises:
        RunError: A part is missing or damaged, or the model is of another kind.
    """
    from safetensors.torch import load_file

    if not is_synthesizer(folder):
        raise RunError(folder, "is no synthesizer", "Give a run of radiffuse synthesize")
    config = read_json(folder / "config.json")
    verify_sums(folder)
    try:
        unet = read_diffusers("UNet2DConditionModel", folder / "unet")
        vae = read_diffusers("AutoencoderKL", folder / "vae")
        tensors = load_file(folder / "density.safetensors")
        if name := not_finite(tensors):
            raise ValueError(f"{name} of the densities is not finite")
        classes = read_json(folder / "density.json", dict[str, list[_Entry]])["classes"]
        densities = {
            entry["name"]: Density.of(
                {k[len(f"{i}.") :]: v for k, v in tensors.items() if k.startswith(f"{i}.")}
            )
            for i, entry in enumerate(classes)
        }
        diffusion = from_dict(Diffusion, config["diffusion"], strict=True)
        return Synthesizer(
            ConditionalDenoiser(unet.eval(), diffusion),
            Autoencoder(vae.eval(), channels),
            load_encoder(str(folder / "encoder")),
            diffusion,
            densities,
            {entry["name"]: entry["images"] for entry in classes},
        )
    except InputError:
        raise
    except Exception as error:  # diffusers and safetensors raise many types, all about these files
        problem = f"is damaged ({first_line(error)})"
        raise RunError(folder, problem, "Restore it, or train again") from None


def _null_text(width: int, folder: Path) -> tuple[Any, Any]:
    """A tokenizer and a text encoder of zeros, which maps any text to the null token, exactly 0."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    write_json(folder / "vocab.json", vocabulary)
    write_atomic(folder / "merges.txt", "#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=2
    )
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=2,
            hidden_size=width,
            intermediate_size=1,
            projection_dim=1,
            num_hidden_layers=0,
            num_attention_heads=1,
            max_position_embeddings=2,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    for weight in encoder.parameters():
        torch.nn.init.zeros_(weight)
    return tokenizer, encoder
