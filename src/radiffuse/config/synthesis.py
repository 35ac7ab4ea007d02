"""The settings of image synthesis conditioned on DINO embeddings (Jimenez-Perez et al. 2024, arXiv 2407.11594)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from .data import Augmentation, Data, PlanSettings
from .learning import Diffusion, Machine, Training
from .types import POSITIONAL, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, Within

SynthesisStrategy = Literal["variation", "interpolate", "perturb", "from-image", "manifold"]


@dataclass(frozen=True, kw_only=True)
class DinoSettings:
    """The small DINO that is trained on the user's images (Caron et al. 2021); not used with a given encoder."""

    width: Annotated[int, Within(64)] = 192
    """Width of the tokens, a multiple of 64. [related] 384 to 1024."""
    depth: PositiveInt = 6
    """Transformer layers."""
    patch: PositiveInt = 8
    """Pixels of a patch along each axis; must divide the size, and half of it."""
    local_crops: NonNegativeInt = 4
    """Small crops beside the two large ones; the teacher sees the large ones alone. [related] 6 to 10."""
    global_scale: tuple[Annotated[float, Within(0.01, 1)], ...] = (0.6, 1.0)
    """Share of the image's area in a large crop. [related] .4 to 1; [ours]: what is left out cannot be drawn."""
    local_scale: tuple[Annotated[float, Within(0.01, 1)], ...] = (0.25, 0.6)
    """Share of the image's area in a small crop, which has half the pixels along each axis. [related] .05 to .4."""
    prototypes: Annotated[int, Within(2)] = 512
    """Outputs of the head. [related] 65536, for a million images."""
    momentum: Fraction = 0.99
    """Of the teacher's weights at the start; rises to 1 along a half cosine. [related] .996 at batches of 1024."""
    temperature: Annotated[float, Within(0.001)] = 0.1
    """Of the student. [related]"""
    teacher_temperature: Annotated[float, Within(0.001)] = 0.04
    """Of the teacher. [related]"""
    center_momentum: Fraction = 0.9
    """Of the running mean of the teacher's outputs, which is subtracted so that none wins always. [related]"""
    spread: NonNegativeFloat = 0.2
    """Weight of the term that keeps the embeddings of a batch apart (KoLeo, of DINOv2). [related] 0.1"""
    augmentation: Augmentation = Augmentation(brightness=0.1, contrast=0.15, gamma=0.2, noise=0.02)
    """Changes of intensity, drawn for each crop on its own. No flip: left and right differ in a body. [ours]"""
    training: Training = Training(
        steps=1000,
        batch_size=32,
        learning_rate=1e-3,
        warmup_steps=100,
        decay="cosine",
        final_learning_rate=1e-6,
        weight_decay=0.04,
        gradient_clip=3.0,
        average_decay=0.0,
    )
    """The optimization. The teacher is the average, so ``average_decay`` is 0. [related] but for the size."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """The KL autoencoder that is trained on the user's images; not used with a given autoencoder."""

    channels: tuple[PositiveInt, ...] = (16, 32, 64)
    """Channels of each level; each level after the first halves the resolution. [related] 128,256,512,512."""
    blocks: PositiveInt = 1
    """Residual blocks per level of the encoder (one more in the decoder)."""
    latent_channels: PositiveInt = 4
    """Channels of the latents. [related]"""
    kl: NonNegativeFloat = 1e-4
    """Weight of the KL divergence from the standard normal, mean over the latents."""
    gradient: NonNegativeFloat = 1.0
    """Weight of the L1 error of differences between neighboring pixels, which keeps edges without a network that
    judges them."""
    augmentation: Augmentation = Augmentation()
    """Random changes of the training images."""
    training: Training = Training(
        steps=1500,
        batch_size=16,
        learning_rate=1e-3,
        warmup_steps=50,
        decay="cosine",
        final_learning_rate=1e-5,
        average_decay=0.999,
    )
    """The optimization. [ours]"""


@dataclass(frozen=True, kw_only=True)
class LatentNetwork:
    """Which conditional U-Net of diffusers to build: a preset by size, and overrides of single values."""

    preset: Literal["tiny", "small", "base", "sd"] = "tiny"
    """tiny: 6 M parameters, for a CPU; small: 33 M; base: 161 M; sd: Stable Diffusion's, 860 M [related]."""
    channels: tuple[PositiveInt, ...] | None = None
    """Channels of each level; each level after the first halves the resolution. None takes the preset's."""
    blocks: PositiveInt | None = None
    """Residual blocks per level on the way down (one more on the way up). None takes the preset's."""
    heads: PositiveInt | None = None
    """Attention heads. None takes the preset's."""
    context: PositiveInt | None = None
    """Width of the context token. None takes the preset's."""


LATENT_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"channels": (64, 96, 128), "blocks": 1, "heads": 4, "context": 128},
    "small": {"channels": (96, 192, 256), "blocks": 2, "heads": 4, "context": 256},
    "base": {"channels": (160, 320, 640), "blocks": 2, "heads": 8, "context": 768},
    "sd": {"channels": (320, 640, 1280, 1280), "blocks": 2, "heads": 8, "context": 768},
}
"""[ours] but for ``sd``."""


@dataclass(frozen=True, kw_only=True)
class Synthesize:
    """Train a latent diffusion model conditioned on DINO embeddings, without annotations."""

    data: str = field(default="", metadata=POSITIONAL)
    """Images; classes, if any, are not trained on."""
    out: str = ""
    """Run folder, with the encoder and the autoencoder as runs inside. The same command again resumes."""
    encoder: str | None = None
    """DINO encoder: a folder with config.json and model.safetensors, or a public name such as facebook/dinov2-base;
    None: train a small one on the images."""
    autoencoder: str | None = None
    """``AutoencoderKL``: a folder with config.json and diffusion_pytorch_model.safetensors, or a public name; None:
    that of ``--from``, else train a small one on the images."""
    from_run: str | None = None
    """``--from``: folder or public name in the layout of Stable Diffusion, whose unet and vae are the start."""
    dino: DinoSettings = DinoSettings()
    """The encoder that is trained here."""
    vae: AutoencoderSettings = AutoencoderSettings()
    """The autoencoder that is trained here."""
    denoiser: LatentNetwork = LatentNetwork()
    """The denoiser; with ``--from`` its own."""
    diffusion: Diffusion = Diffusion(
        schedule="scaled-linear", prediction_type="v", zero_terminal_snr=True
    )
    """The noising process. Schedule [related]; v with zero terminal SNR, or epsilon without [related]."""
    null: Fraction = 0.1
    """Share of the samples whose embedding is replaced by the null token. [related]"""
    training: Training = Training(
        steps=4000,
        batch_size=32,
        learning_rate=5e-4,
        warmup_steps=200,
        decay="cosine",
        final_learning_rate=2e-5,
        average_decay=0.999,
    )
    """The optimization of the denoiser. [ours]"""
    plan: PlanSettings = PlanSettings()
    """Size and intensity."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""
    limit: PositiveInt | None = None
    """Use only this many images, drawn by seed; None: all."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How a synthesizer draws."""

    strategy: tuple[SynthesisStrategy, ...] = ("variation",)
    """One or several. variation: the embedding of a real image, new noise; interpolate: between two real images of a
    class; perturb: a real image's embedding, moved as the class varies; from-image: a real image noised to
    ``strength``; manifold: drawn from a density fitted to the embeddings."""
    strength: NonNegativeFloat = 0.5
    """perturb: size of the move, in standard deviations of the class; from-image: share of the timesteps, 0 to 1."""
    guidance: NonNegativeFloat = 1.5
    """Classifier-free guidance: 1 is none."""
    sampler: Literal["ddim", "ddpm", "dpm++"] | None = None
    """ddim with eta 0; dpm++: DPM-Solver++ (second order, multistep) of diffusers, for a synthesizer; ddpm, for a
    denoiser: with few steps and epsilon prediction it was seen to correct errors that DDIM keeps. None: ddim for a
    synthesizer, ddpm for a denoiser."""
    steps: PositiveInt = 50
    """Inference steps. [related]"""
    batch: PositiveInt = 32
    """Images drawn together."""


@dataclass(frozen=True, kw_only=True)
class Generate(Drawing):
    """Draw synthetic images from a synthesizer or a pre-trained denoiser; the output is a data set."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run of radiffuse synthesize; or a denoiser: a run of radiffuse pretrain, or the name of shipped weights."""
    out: str = ""
    """Folder for the images and provenance.csv; finished images are kept when the command is run again."""
    references: str | None = None
    """Real images that the embeddings come from; None: those that the run was trained on. manifold uses the density
    that the run holds, unless references are given."""
    count: PositiveInt = 100
    """Images of each strategy."""
    seed: NonNegativeInt = 0
    """Seed; image i of a strategy depends on it, on i and on the references."""
    reader: Data = Data()
    """How the references become cases."""
    machine: Machine = Machine()
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """Segment films by the self-attention of a synthesizer, without any label, and name the lungs by a rule."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run of radiffuse synthesize."""
    data: str = field(default="", metadata=POSITIONAL)
    """Films. Labels, if any, are scored against and used for nothing else; values above 0 are lung."""
    out: str = ""
    """Folder for masks, segments and zeroshot.csv."""
    seed: NonNegativeInt = 0
    """Seed of the noise."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""
