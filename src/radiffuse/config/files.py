"""Settings of commands about data sets, runs and weights as files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .data import Data, PlanSettings
from .learning import Diffusion
from .types import POSITIONAL, NonNegativeInt, PositiveInt


@dataclass(frozen=True, kw_only=True)
class Check:
    """Say what is in a data set and what is wrong with it, file by file."""

    data: str = field(default="", metadata=POSITIONAL)
    """Data set: a folder of images, pairs, classes, nnU-Net, MSD, a DICOM tree, a table or COCO JSON."""
    reader: Data = Data()
    """How the path becomes cases."""
    header_only: bool = False
    """Read headers alone: faster, but damage inside the files goes unseen."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Write procedural images with exact labels: bitewings, chest films or abdomen CT."""

    kind: Literal["bitewing", "chest", "abdomen"] = field(default="bitewing", metadata=POSITIONAL)
    """What to draw."""
    out: str = ""
    """Folder for the data set."""
    count: PositiveInt = 100
    """Number of cases."""
    labelled: bool = True
    """Write label maps beside the images."""
    size: tuple[PositiveInt, ...] = (64, 64)
    """Pixels or voxels along each axis."""
    seed: NonNegativeInt = 0
    """Seed; the same seed, count and size give the same files."""
    start: NonNegativeInt = 0
    """Number of the first case: other numbers are other patients."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Say in one screen what a run, a folder of weights or a plan is: data, network, steps, scores, licence."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run folder, folder of weights (``config.json`` with safetensors), plan file, study or evaluation."""
    report: bool = False
    """Write report.html of the run, study or evaluation again."""


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Make a pre-trained run of a denoiser of diffusers, MONAI or guided-diffusion, where the networks are the same."""

    weights: str = field(default="", metadata=POSITIONAL)
    """Folder with config.json and safetensors: a UNet2DModel or its pipeline, the arguments and weights of a
    DiffusionModelUNet; or a safetensors file of guided-diffusion. Pickled weights are refused."""
    out: str = ""
    """Run folder; every command takes it with ``--from``."""
    kind: Literal["auto", "diffusers", "monai", "guided-diffusion"] = "auto"
    """Whose network it is; auto looks at config.json, which guided-diffusion does not have."""
    head_channels: PositiveInt = 64
    """guided-diffusion: channels per attention head, which its weights do not tell."""
    diffusion: Diffusion = Diffusion(schedule="linear")
    """The process it was trained on; the scheduler of a pipeline goes first."""
    plan: PlanSettings = PlanSettings()
    """Size, spacing and intensity of the images it was trained on; volumes need a spacing."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run in the form that another program reads: published folder, ONNX, torch.export, MONAI, nnU-Net."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run folder, or the name of shipped weights."""
    out: str = ""
    """Folder for the result."""
    format: Literal["pretrained", "onnx", "torch-export", "monai-bundle", "nnunet-encoder"] = (
        "pretrained"
    )
    """pretrained: a run without log, state and names of cases, for others to use; onnx and torch-export: the network of
    a segmenter as a program; monai-bundle: a segmenter with its pre- and postprocessing for monai.bundle;
    nnunet-encoder: the network as an architecture of nnU-Net, with its weights."""
    head: str | None = None
    """Probing: which head; None: the first."""
    licence: str | None = None
    """Licence of the weights for the model card, as the hub spells it, such as apache-2.0."""
    data_licence: str | None = None
    """Licence of the training data for the model card; None: what the data set states."""
    push: str | None = None
    """pretrained: upload the folder to this repository of the Hugging Face hub too, OWNER/NAME."""
