"""Settings of synthesis by DINO embeddings (Jimenez-Perez et al. 2024, arXiv 2407.11594), and of judging images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from .data import Augmentation, Data, PlanSettings
from .learning import Diffusion, Machine, Training
from .types import (
    POSITIONAL,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Seed,
    Within,
    before,
)

SynthesisStrategy = Literal[
    "variation", "interpolate", "perturb", "from-image", "manifold", "reconstruction"
]


@dataclass(frozen=True, kw_only=True)
class DinoSettings:
    """The small DINO that is trained on the images (Caron et al. 2021) unless an encoder is given."""

    width: Annotated[int, Within(64)] = 192
    """Width of the tokens, a multiple of 64. [related] 384 to 1024."""
    depth: PositiveInt = 6
    """Transformer layers."""
    patch: PositiveInt = 8
    """Pixels of a patch along each axis; must divide the image size and half of it."""
    local_crops: NonNegativeInt = 4
    """Small crops in addition to the two large ones; the teacher sees only the large ones. [related] 6 to 10."""
    global_scale: tuple[Annotated[float, Within(0.01, 1)], ...] = (0.6, 1.0)
    """Area of a large crop as a fraction of the image. [related] .4 to 1; [ours] what is cut off cannot be drawn."""
    local_scale: tuple[Annotated[float, Within(0.01, 1)], ...] = (0.25, 0.6)
    """Area of a small crop as a fraction of the image; it is resized to half the image size. [related] .05 to .4."""
    prototypes: Annotated[int, Within(2)] = 512
    """Outputs of the head. [related] 65536, for a million images."""
    momentum: Fraction = 0.99
    """Initial momentum of the teacher's weights; rises to 1 along a half cosine. [related] .996 at batches of 1024."""
    temperature: Annotated[float, Within(0.001)] = 0.1
    """Temperature of the student. [related]"""
    teacher_temperature: Annotated[float, Within(0.001)] = 0.04
    """Temperature of the teacher after its warm-up. [related] .04 by default, .07 in its longest trainings."""
    start_teacher_temperature: Annotated[float, Within(0.001)] = 0.04
    """Temperature of the teacher at the first step. [related]"""
    teacher_warmup: Fraction = field(default=0.3, metadata=before(0.0))
    """Share of the steps in which the teacher's temperature rises linearly. [related] 30 of 100 epochs."""
    last_layer_held: Fraction = field(default=0.05, metadata=before(0.0))
    """Share of the steps, from the first, in which the last layer does not learn. [related] the first of 100 epochs;
    [ours] of 1,000 steps, about one epoch of 1,600 films."""
    center_momentum: Fraction = 0.9
    """Momentum of the running mean of the teacher's outputs, which is subtracted against collapse. [related]"""
    spread: NonNegativeFloat = 0.2
    """Weight of the term that keeps the embeddings of a batch apart (KoLeo, of DINOv2). [related] 0.1"""
    augmentation: Augmentation = Augmentation(brightness=0.1, contrast=0.15, gamma=0.2, noise=0.02)
    """Intensity changes, drawn separately for each crop. No flip: left and right differ in a body. [ours]"""
    training: Training = Training(
        steps=1000,
        batch_size=32,
        learning_rate=1e-3,
        warmup_steps=100,
        decay="cosine",
        final_learning_rate=1e-6,
        weight_decay=0.04,
        final_weight_decay=0.4,
        gradient_clip=3.0,
        average_decay=0.0,
    )
    """The optimization. The teacher is the average, so ``average_decay`` is 0. [related] except for the size."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """The KL autoencoder that is trained on the images unless an autoencoder is given."""

    channels: tuple[PositiveInt, ...] = (16, 32, 64)
    """Channels of each level; each level after the first halves the resolution. [related] 128,256,512,512."""
    blocks: PositiveInt = 1
    """Residual blocks per level of the encoder (one more in the decoder)."""
    latent_channels: PositiveInt = 4
    """Channels of the latents. [related]"""
    kl: NonNegativeFloat = 1e-4
    """Weight of the KL divergence from the standard normal, averaged over the latents."""
    gradient: NonNegativeFloat = 1.0
    """Weight of the L1 error of differences between neighboring pixels; keeps edges sharp without a perceptual loss."""
    perceptual: NonNegativeFloat = 0.0
    """Weight of the squared error (0 to 4) of the DINO encoder's patch tokens, each of length 1, between image and
    reconstruction. [related] the features of a network trained on photographs (LPIPS)."""
    augmentation: Augmentation = Augmentation()
    """Augmentation of the training images."""
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
"""[ours] except ``sd``."""


@dataclass(frozen=True, kw_only=True)
class Synthesize:
    """Train a latent diffusion model conditioned on DINO embeddings, without annotations."""

    data: str = field(default="", metadata=POSITIONAL)
    """Images; any classes are not used in training."""
    out: str = ""
    """Run folder; encoder and autoencoder are runs inside it. Repeat the command to resume an interrupted run."""
    encoder: str | None = None
    """DINO encoder: a folder with config.json and model.safetensors, a run of radiffuse synthesize, or a public name
    such as facebook/dinov2-base; None: train a small one on the images."""
    autoencoder: str | None = None
    """``AutoencoderKL``: a folder with config.json and diffusion_pytorch_model.safetensors, or a public name; None:
    that of ``--from``, else train a small one on the images."""
    from_run: str | None = None
    """``--from``: start from the unet and vae of a folder or public name in the layout of Stable Diffusion."""
    dino: DinoSettings = DinoSettings()
    """The encoder, if it is trained here."""
    vae: AutoencoderSettings = AutoencoderSettings()
    """The autoencoder, if it is trained here."""
    denoiser: LatentNetwork = LatentNetwork()
    """The denoiser; with ``--from`` it is that of the folder."""
    diffusion: Diffusion = Diffusion(
        schedule="scaled-linear", prediction_type="v", zero_terminal_snr=True
    )
    """The noising process: v prediction with zero terminal SNR, or epsilon without [related]; schedule [related]."""
    null: Fraction = 0.1
    """Probability with which a sample's embedding is replaced by the null token. [related]"""
    alignment: NonNegativeFloat = 0.0
    """Weight of a term that aligns an inner feature of the denoiser, projected, with the encoder's tokens of the clean
    image (REPA, Yu et al. 2025; .5 there); 0: none. The projector is not kept."""
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
    """How images are drawn."""

    strategy: tuple[SynthesisStrategy, ...] = ("variation",)
    """Sources of the embedding, one or several. variation: a real image; interpolate: between two images of a class;
    perturb: a real image, moved along the variation of its class; from-image: a real image, and the image itself,
    noised to ``strength``, as the start; manifold: a density fitted to the embeddings; reconstruction: no embedding,
    but a real image through the autoencoder alone, which shows what is lost there. It still shows the patient."""
    strength: NonNegativeFloat = 0.5
    """perturb: size of the move, in standard deviations of the class; from-image: fraction of the timesteps, 0 to 1."""
    guidance: NonNegativeFloat = 1.5
    """Scale of classifier-free guidance; 1 is none."""
    sampler: Literal["ddim", "ddpm", "dpm++", "heun"] | None = None
    """ddim: with eta 0, of a flow Euler's method; dpm++ (synthesizers only, and no flows): DPM-Solver++ of diffusers,
    second order, multistep; ddpm (denoisers only): with few steps and epsilon prediction it was seen to correct errors
    that DDIM keeps; heun (flows only): second order, asks the network twice per step. None: ddim for a synthesizer or a
    flow, ddpm for another denoiser."""
    steps: PositiveInt | None = None
    """Inference steps. None: 50 [related], or as many timesteps as were trained where these are fewer."""
    batch: PositiveInt = 32
    """Images drawn together."""


@dataclass(frozen=True, kw_only=True)
class Generate(Drawing):
    """Draw synthetic images from a synthesizer or a denoiser, as a data set; with masks from a joint one."""

    run: str = field(default="", metadata=POSITIONAL)
    """A run of radiffuse synthesize or pretrain, or the name of included weights; one of radiffuse fit --method joint,
    whose masks are drawn with the images."""
    out: str = ""
    """Folder for the images, or images/ and labels/, and provenance.csv; finished images are kept when the
    command is repeated."""
    references: str | None = None
    """Real images whose embeddings are used; None: the training images of the run. Without references, manifold uses
    the density that the run holds."""
    count: PositiveInt = 100
    """Images per strategy."""
    seed: Seed = 0
    """Seed; image i of a strategy depends only on it, on i and on the references."""
    reader: Data = Data()
    """How the references become cases."""
    machine: Machine = Machine()
    """Device and threads; the arithmetic is of 32 bits."""


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """Segment films or volumes by the features of a network that was trained without labels."""

    run: str = field(default="", metadata=POSITIONAL)
    """A run of radiffuse pretrain or synthesize, or the name of included weights, such as films-64."""
    data: str = field(default="", metadata=POSITIONAL)
    """Films, or volumes where the run was trained on volumes. Any labels are only used for scoring; of films, values
    above 0 are lung."""
    out: str = ""
    """Folder for masks, segments, clusters.json and zeroshot.csv."""
    method: Literal["clusters", "diffseg"] = "clusters"
    """clusters: the features of all films or volumes, clustered together by k-means; clusters are named once for all of
    them, the lungs of films by a rule. diffseg: each film by the self-attention of a synthesizer (Tian et al. 2024)."""
    features: Literal["denoiser", "encoder"] = "denoiser"
    """clusters: what is clustered. denoiser: the decoder of the denoiser, of pixels or latents; encoder: the patch
    tokens of a synthesizer's DINO encoder."""
    level: NonNegativeInt | None = None
    """clusters: level of the decoder, 0 the finest; None: of films that with a grid nearest to 16 x 16, of volumes the
    finest."""
    timestep: NonNegativeInt = 0
    """clusters: the timestep to which films are noised for the denoiser."""
    noises: PositiveInt = 2
    """clusters: noises over which features are averaged."""
    clusters: Annotated[int, Within(2, 64)] | None = None
    """clusters: how many; None: 8 for films, 32 for volumes. A number chosen by labels has to be chosen on other scans
    than those that are scored."""
    coordinates: NonNegativeFloat = 1.0
    """Volumes: variance of the body coordinates of a guided run, all together, in that of all features [ours]. 0: they
    are left out."""
    names_from: str | None = None
    """Volumes: labelled ones that cost nobody any work, such as those of radiffuse anatomy abdomen. A cluster gets the
    class that it covers there, so that masks have names. None: segments alone."""
    seed: Seed = 0
    """Seed of the noise, and of k-means."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and threads; the arithmetic is of 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judge synthetic images: how close they come to real ones, and whether they copy the training images."""

    real: str = field(default="", metadata=POSITIONAL)
    """Real images. For fidelity: images that the generator was neither trained on nor given as references; for
    memorization: its training images, unless ``--trained`` names them."""
    fake: str = field(default="", metadata=POSITIONAL)
    """Synthetic images, such as a folder of radiffuse generate."""
    out: str | None = None
    """Folder for the tables and report.html; None: only print."""
    only: tuple[Literal["fidelity", "memorization"], ...] = ("fidelity", "memorization")
    """fidelity: Fréchet and kernel distance, precision, recall, density, coverage; memorization: how similar each
    synthetic image is to a training image, compared with how similar real images are to each other."""
    trained: str | None = None
    """memorization: the images that the generator was trained on; None: ``real``."""
    encoder: str = "films-64"
    """Feature network: a run of radiffuse pretrain or the name of included weights (features: the mean of the
    denoiser's bottleneck), or the folder or public name of a DINO of transformers (features: its global token). Results
    of different networks cannot be compared. For memorization, use another network than the generator's encoder."""
    draws: PositiveInt = 200
    """fidelity: bootstrap samples behind each interval."""
    seed: Seed = 0
    """fidelity: seed of the resampling and of the random halves of the real images."""
    held_out: str | None = None
    """memorization: real images of patients that the generator has not seen; their distances to the training images set
    the threshold. None: distances between training images of different patients set it."""
    percentile: Annotated[float, Within(50, 100)] = 95.0
    """memorization: the threshold. An image is suspected where it is closer to a training image than this percentage of
    real images are to any image of another patient."""
    pairs: PositiveInt = 8
    """memorization: number of closest pairs in the figure."""
    reader: Data = Data()
    """How the paths become cases."""
    machine: Machine = Machine()
    """Device and threads; the arithmetic is of 32 bits."""
