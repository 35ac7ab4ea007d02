"""Settings of learning: the noising process, losses, the optimization, the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from .data import VIEWS_AUGMENTATION, Augmentation
from .types import (
    Fraction,
    Memory,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Within,
)


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """The noising process and what the network predicts."""

    schedule: Literal["linear", "cosine", "scaled-linear", "flow"] = "cosine"
    """linear: betas 1e-4 to 0.02 for any T, as published for T = 1000 (Ho et al. 2020); cosine: Nichol and
    Dhariwal 2021, eq. 17; scaled-linear: Stable Diffusion's, linear in the square root of beta, .00085 to .012; flow:
    the straight path (1 - s) x_start + s noise, s = (t + 1) / T (rectified flow, Liu et al. 2023; flow matching, Lipman
    et al. 2023), which needs v or x_start."""
    num_train_timesteps: PositiveInt = 1000
    """T, the number of timesteps; timesteps are 0 to T - 1."""
    prediction_type: Literal["epsilon", "x_start", "v"] = "epsilon"
    """What the network's output means: the noise, the clean image, or the velocity (Salimans and Ho 2022; of a flow the
    noise less the image)."""
    variance: Literal["fixed_small", "fixed_large", "learned"] = "fixed_small"
    """Variance of the reverse step; learned doubles the output channels and adds the variational bound to the loss
    (Nichol and Dhariwal 2021, hybrid objective)."""
    loss: Literal["mse", "smooth-l1"] = "mse"
    """Distance between prediction and target."""
    min_snr_gamma: PositiveFloat | None = None
    """Clamp of the min-SNR loss weight (Hang et al. 2023; 5 is usual); None: all timesteps weigh the same."""
    timestep_sampling: Literal["uniform", "loss-aware", "low", "logit-normal"] = "uniform"
    """How training timesteps are drawn; loss-aware: Nichol and Dhariwal 2021, section 3.3, with unbiased weights;
    uniform until every timestep has had ten losses, about 23,000 in all for T = 1000, as run and ``--dry-run`` say.
    low: more of the low ones, for features of details, without weights that undo it [ours]; logit-normal: more of the
    middle, usual with a flow (Esser et al. 2024)."""
    timestep_power: Annotated[float, Within(1, 20)] = 2.0
    """low: timesteps are T u^power, u uniform in [0, 1). With T = 300, t <= 10 is drawn in 19 % of all cases by a power
    of 2, in 33 % by 3, in 4 % by 1, which is uniform."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that the last timestep is pure noise (Lin et al. 2024); needs x_start or v."""
    shift: Annotated[float, Within(0.01, 1000)] | None = None
    """How many times as long the sides of the image are as those that the schedule was made for (64 pixels): 4 at 256
    pixels. Averages over neighbors keep more signal in a larger image; so log SNR is lowered by 2 log(shift) at every
    timestep (Hoogeboom et al. 2023, "simple diffusion"). None: the schedule as it is; in ``pretrain`` by ddpm as the
    plan says: by the patch, with ``--from`` as in that run. With flow: Esser et al. 2024, eq. 23, which is the same."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """A segmentation loss: a weighted sum of terms, each a mean over an image and then over images."""

    cross_entropy: NonNegativeFloat = 1.0
    """Weight of the cross-entropy."""
    dice: NonNegativeFloat = 0.0
    """Weight of 1 - soft Dice, mean over the foreground classes present in the image."""
    focal: NonNegativeFloat = 0.0
    """Weight of the focal loss (Lin et al. 2017)."""
    focal_gamma: NonNegativeFloat = 2.0
    """Exponent of the focal loss; 0 is cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Contrastive pre-training: how the voxels of two crops are compared."""

    crop: Annotated[float, Within(0.1, 1)] = 0.75
    """2D: crop size as a fraction of the film, rounded down to what the network can halve. 3D: the plan's patch."""
    voxels: Annotated[int, Within(2)] = 512
    """Voxels per pair of crops; each has all the others as negatives [ours; related: 1000 over a batch]."""
    temperature: Annotated[float, Within(0.001)] = 0.1
    """Temperature of the softmax over similarities [related]."""
    width: PositiveInt = 128
    """Length of an embedding [related]."""
    views: Augmentation = VIEWS_AUGMENTATION
    """Intensity changes, drawn separately for each crop."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a mask is sampled from noise."""

    sampler: Literal["ddpm", "ddim"] = "ddpm"
    """Reverse process. ddpm: stochastic, with the small fixed variance; ddim: deterministic with ``eta`` 0."""
    steps: PositiveInt = 5
    """Inference steps, evenly spaced from the last training timestep to the first."""
    eta: Fraction = 0.0
    """Noise of ddim, 0 (none) to 1."""
    legacy_timesteps: bool = False
    """At step i, give the network the time (i + 1) / steps of T, as the released code of Fu et al. does, instead of the
    training timestep. Only for measuring the effect."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One optimization run."""

    steps: PositiveInt | None = None
    """Optimizer steps; None: as the plan says."""
    batch_size: PositiveInt | None = None
    """Images or patches per step, over all devices; None: as the plan says."""
    micro_batch: PositiveInt | None = None
    """Images per forward pass; gradients are accumulated over the passes of a batch. None: as many as the
    plan expects to fit, or less where memory runs out and the result stays the same."""
    coarse: Annotated[float, Within(0, 0.9)] | None = None
    """Share of the steps, the first ones, in which a segmenter sees images at half the resolution; None: as the plan
    says. 0: none."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """adamw decouples weight decay; adam adds it to the gradient."""
    learning_rate: NonNegativeFloat = 1e-4
    """Peak learning rate."""
    warmup_steps: NonNegativeInt = 0
    """Steps of the linear warm-up from ``start_learning_rate``."""
    start_learning_rate: NonNegativeFloat = 1e-5
    """Learning rate at the start of the warm-up."""
    decay: Literal["constant", "cosine", "step"] = "constant"
    """Schedule of the learning rate after the warm-up; step: a single drop to ``final_learning_rate``."""
    final_learning_rate: NonNegativeFloat = 0.0
    """Learning rate at the end of the cosine, or after the drop."""
    decay_steps: NonNegativeInt | None = None
    """Step, counted from 0, at which the cosine ends or the rate drops, after ``warmup_steps``; None: the last one."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay."""
    final_weight_decay: NonNegativeFloat | None = None
    """Weight decay of the last step, reached from ``weight_decay`` along half a cosine; None: it stays the same."""
    gradient_clip: PositiveFloat | None = 1.0
    """Largest norm of the gradient; None: no clipping."""
    average_decay: Fraction = 0.9999
    """Decay of the exponential moving average of the weights, at most (1 + n) / (10 + n) at step n; 0 turns it off."""
    keep: Literal["best", "last"] = "best"
    """Which averaged weights segmentation ends with. best: those with the highest Dice in validation, where there are
    cases for it; last: those of the last step."""
    validate_every: NonNegativeInt = 500
    """Steps between validations; 0 turns them off."""
    checkpoint_every: PositiveInt = 500
    """Steps between checkpoints."""
    keep_state: bool = False
    """Keep the checkpoints of a training that has ended, so that it can be repeated with more ``steps``.
    They are several times as large as the model."""
    log_every: PositiveInt = 25
    """Steps between two lines of ``log.jsonl``."""
    wandb: str | None = None
    """Project of Weights & Biases to mirror the log to (``WANDB_MODE=offline`` keeps it local); None: none."""
    mlflow: str | None = None
    """Address or folder of MLflow to mirror the log to; None: none."""
    seed: Seed = 0
    """Seed of the initial weights, the order of cases, augmentation and noise."""

    @property
    def length(self) -> int:
        """``steps``, once they are decided."""
        assert self.steps is not None
        return self.steps

    @property
    def coarse_steps(self) -> int:
        """How many steps are taken at half the resolution; the last one never is."""
        return int((self.coarse or 0.0) * self.length)

    @property
    def batch(self) -> int:
        """``batch_size``, once it is decided."""
        assert self.batch_size is not None
        return self.batch_size


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How a run uses the machine; results change only by rounding, except for the noise that a GPU draws."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto: on a GPU if there is one."""
    devices: PositiveInt = 1
    """Processes per node that train together, one device each. Leave it out with torchrun or srun, which decide."""
    num_nodes: PositiveInt = 1
    """Nodes of a distributed training. Leave it out with torchrun or srun, which decide."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How processes train together. ddp (and auto): each holds the whole network; fsdp: weights, gradients, averages
    and optimizer state are sharded over the processes."""
    scheduler: str | None = None
    """Address of a dask scheduler, such as tcp://10.0.0.1:8786, whose workers prepare, segment and embed cases. They
    must see the same files at the same paths. None: this machine."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """Arithmetic; auto: bf16-mixed where bfloat16 is fast (recent GPUs, CPUs with AMX)."""
    compile: bool | None = None
    """Compile the network with torch.compile: takes minutes on a CPU, then steps are faster. None: as the plan says."""
    channels_last: bool = True
    """Keep activations in channels-last order; faster for 2D convolutions on CPUs and recent GPUs."""
    deterministic: bool = False
    """Add up in a fixed order on a GPU, so that a run resumes there bit for bit, as on a CPU it always does. Steps take
    longer; what a method computes in no fixed order is refused."""
    checkpoint_activations: bool | None = None
    """Recompute activations in the backward pass: less memory for up to a third more time. None: as the plan says. Of
    the stages of synthesize the denoiser alone does so, not DINO and not the autoencoder."""
    memory: Memory | None = None
    """Plan for so much free memory, such as 8GiB, of the GPU or of the machine; None: what is free."""
    rate: Annotated[float, Within(0.001, 1e6)] | None = None
    """Plan for a machine of this speed, in TFLOP/s (10^12 operations a second) in training; None: this machine's,
    measured by a few steps."""
    workers: PositiveInt | None = None
    """Threads that read and prepare files; None: one per core."""
    threads: PositiveInt | None = None
    """Threads for arithmetic; None: torch's default. Keep it when resuming, or results differ by rounding."""
