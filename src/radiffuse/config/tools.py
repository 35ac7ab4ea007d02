"""Settings of the tools around data sets, runs and the machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .data import Data, PlanSettings
from .learning import Diffusion, Machine
from .types import POSITIONAL, Hours, NonNegativeInt, PositiveInt, Seed, Within


@dataclass(frozen=True, kw_only=True)
class Check:
    """Report what is in a data set and what is wrong with it, file by file."""

    data: str = field(default="", metadata=POSITIONAL)
    """Data set: a folder of images, pairs or classes, nnU-Net or MSD data, a DICOM tree, a table or COCO JSON."""
    reader: Data = Data()
    """How the path becomes cases."""
    header_only: bool = False
    """Read only headers: faster, but damage inside the files goes unnoticed."""
    plan: bool = False
    """Instead of checking every file, print what would be trained on these images and this machine, and why. With
    labels: what ``fit`` would try, and the plan of the first candidate. Without: the plan of ``pretrain``. Nothing is
    written."""
    hours: Hours | None = None
    """Hours to plan for."""
    unlabelled: tuple[str, ...] = ()
    """Folders of unlabelled images, the pool, to plan for."""
    from_run: str | None = None
    """``--from``: pre-trained run or included weights to plan for."""
    machine: Machine = Machine()
    """The machine to plan for."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Write procedural images with exact labels: bitewings, chest films or abdominal CT."""

    kind: Literal["bitewing", "chest", "abdomen"] = field(default="bitewing", metadata=POSITIONAL)
    """What to draw: bitewing, chest or abdomen."""
    out: str = ""
    """Folder for the data set."""
    count: PositiveInt = 100
    """Number of cases."""
    labelled: bool = True
    """Write label maps as well."""
    size: tuple[PositiveInt, ...] | None = None
    """Pixels or voxels along each axis, three for abdomen; one number: along all. None: 64,64, and 64,64,40 for
    abdomen, at about 6 mm."""
    seed: Seed = 0
    """Seed; the same seed, count and size give the same files."""
    start: NonNegativeInt = 0
    """Number of the first case; each number is a patient of its own."""
    textured: bool = False
    """abdomen: flesh and noise vary by as many HU, over as many millimeters, as in real CT; the scenes and their labels
    are the same."""


@dataclass(frozen=True, kw_only=True)
class Select:
    """Choose scans of a pool to label next: typical and diverse ones, or uncertain ones of a run."""

    data: str = field(default="", metadata=POSITIONAL)
    """The pool. Scans that have labels, there or in the data of ``--from``, are not chosen."""
    out: str = ""
    """CSV file for the list: place, case, file and why."""
    from_run: str | None = None
    """``--from``: a segmentation run, to choose scans about which it is uncertain; or a pre-trained run, or the name of
    included weights, to choose typical and diverse scans by its features. None: by those of ``films``, with color
    films converted to gray; for volumes, and scans of several files, by downsampled images."""
    count: PositiveInt = 10
    """Number of scans to choose, one per patient and without copies, as long as there are enough."""
    seed: Seed = 0
    """Seed of the clusters, and of the noise that varies uncertain scans."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Summarize a run, a study, an evaluation, weights or a plan on one screen: data, network, scores, licence."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run folder, name of included weights, study, evaluation, masks or images that a command wrote, folder of weights
    (``config.json`` with safetensors), or plan file."""
    report: bool = False
    """Write report.html of the run, study or evaluation once more."""


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn a denoiser of diffusers, MONAI or guided-diffusion into a pre-trained run, if its network can be built."""

    weights: str = field(default="", metadata=POSITIONAL)
    """Folder with config.json and safetensors (a UNet2DModel or its pipeline, or the arguments and weights of a
    DiffusionModelUNet), or a safetensors file of guided-diffusion. Pickled weights are refused."""
    out: str = ""
    """Run folder; give it to other commands as ``--from``."""
    kind: Literal["auto", "diffusers", "monai", "guided-diffusion"] = "auto"
    """Library that the network comes from; auto: as config.json says; guided-diffusion has none."""
    heads: PositiveInt | None = None
    """guided-diffusion: attention heads (``num_heads``). The weights do not tell them: give these or head_channels."""
    head_channels: PositiveInt | None = None
    """guided-diffusion: channels per attention head (``num_head_channels``)."""
    attention_order: Literal["legacy", "new"] | None = None
    """guided-diffusion: new if trained with ``use_new_attention_order``, as the 64 px ImageNet model, else legacy; the
    weights do not tell, so it must be given unless heads is 1."""
    diffusion: Diffusion = Diffusion(schedule="linear")
    """The noising process that it was trained with; settings that differ from the scheduler of a
    pipeline are refused."""
    plan: PlanSettings = PlanSettings()
    """Size, spacing and intensity of the images it was trained on; volumes need a spacing."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run in a form that other programs read: a folder to publish, ONNX, torch.export, MONAI or nnU-Net."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run folder, or the name of included weights."""
    out: str = ""
    """Folder for the result."""
    format: Literal["pretrained", "onnx", "torch-export", "monai-bundle", "nnunet-encoder"] = (
        "pretrained"
    )
    """pretrained: the run without log, state and case names, ready to share; onnx and torch-export: the network of a
    segmenter as a program; monai-bundle: a segmenter with its pre- and post-processing, for monai.bundle;
    nnunet-encoder: the network and its weights as an nnU-Net architecture."""
    head: str | None = None
    """Probing: which head to export; None: the first."""
    licence: str | None = None
    """Licence of the weights for the model card, as the hub spells it, such as apache-2.0."""
    data_licence: str | None = None
    """Licence of the training data for the model card; None: what the data set states."""
    push: str | None = None
    """pretrained: also upload the folder to this repository of the Hugging Face hub, OWNER/NAME."""


@dataclass(frozen=True, kw_only=True)
class View:
    """View scans, masks and runs in the browser; segment and generate there."""

    paths: tuple[str, ...] | None = field(default=None, metadata=POSITIONAL)
    """Runs, studies, evaluations, tables of results, scans and data sets, in any order; none: drop files there."""
    masks: str | None = None
    """Masks of the scans, named after the cases: a folder of radiffuse predict, with its maps."""
    worklist: str | None = None
    """Table of radiffuse select: its scans alone are shown, in its order."""
    corrections: str | None = None
    """Folder for masks that are corrected on the page, with copies of their scans, for ``fit --with``; made when the
    first is saved. None: ``corrections`` in the folder where the command was started."""
    port: Annotated[int, Within(0, 65535)] = 0
    """Port on 127.0.0.1, which other computers cannot reach; 0: any free one."""
    browser: bool = True
    """Open the page in the browser; its address is printed in any case."""
    upload_limit: PositiveInt = 2000
    """Largest file that can be dropped, in MB, also after unzipping; all files together may have four times as much."""
    reader: Data = Data()
    """How a path becomes cases."""
    machine: Machine = Machine()
    """Device and precision for what is computed on the page."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """List the cache by last use and size; delete what is unused, or all. What is deleted is made again when needed."""

    delete: Literal["unused", "all"] | None = None
    """What to delete: arrays that no command has opened for ``days``, or all arrays; splits stay. End runs first."""
    days: PositiveInt = 30
    """Days without use after which arrays count as unused."""
    cache: str | None = None
    """Cache folder; None: ``$RADIFFUSE_CACHE``, else ``~/.cache/radiffuse``."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Report what this machine can do and what is in the way: packages, devices, memory, disk, cache."""

    json: bool = False
    """Print JSON instead of text."""
    cache: str | None = None
    """Cache folder to inspect; None: ``$RADIFFUSE_CACHE``, else ``~/.cache/radiffuse``."""
    completion: Literal["bash", "zsh", "fish"] | None = None
    """Print only a script that completes commands, flags and values in this shell."""
