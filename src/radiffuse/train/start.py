"""The trained network that a run starts from: found, loaded, and held against images and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import (
    Diffusion,
    Fit,
    Network,
    Training,
    UNetConfig,
    network_settings,
    resolve_network,
)
from ..config.network import IMAGENET
from ..config.values import from_dict
from ..data.dataset import Dataset
from ..data.fingerprint import find_dims
from ..data.plan import Plan
from ..errors import InputError
from ..nets.coordinates import CoordinateRegressor
from ..nets.imagenet import ImageNetDenoiser, ImageNetUNet
from ..nets.joint_denoiser import JointDenoiser
from ..nets.registry import load_network
from ..nets.segmenter import SegmentingUNet
from ..nets.unet import UNet, verify_config
from .edited import verify_channels, verify_edited
from .memory import verify_memory
from .run import Run, find_run

Pretrained = UNet | ImageNetDenoiser
"""Networks that pre-training makes; the second knows no timesteps, and starts segmenters alone."""
Segmenter = SegmentingUNet | ImageNetUNet
"""Networks of ``fit`` that finetune trains further, head and all."""


@dataclass(frozen=True)
class Start:
    """The pre-trained network, or the segmenter, that a run starts from.

    Attributes:
        run: The run that it was trained in.
        network: The network itself.
        diffusion: The noising process of the run.
        noised: Whether it learned from images noised to all timesteps, and so knows others than 0.
        plan: How images became its input.
    """

    run: Run
    network: Pretrained | Segmenter
    diffusion: Diffusion
    noised: bool
    plan: Plan

    @property
    def body(self) -> UNet | ImageNetUNet:
        """See ``body_of``."""
        return body_of(self.network)

    @property
    def denoiser(self) -> UNet:
        """The U-Net that knows timesteps, as ``inherit`` and ``load_denoiser`` see to."""
        assert isinstance(self.body, UNet)
        return self.body

    @property
    def unet(self) -> UNetConfig | None:
        """See ``unet_of``."""
        return unet_of(self.body)

    @property
    def coordinate_channels(self) -> int:
        """Body coordinates that it sees of each voxel, 0 to 3."""
        return self.body.coordinate_channels if isinstance(self.body, UNet) else 0


def find_pretrained(name: str) -> Run:
    """A finished run by folder, or shipped weights by name.

    Raises:
        InputError: Neither is there, or the run has not finished.
    """
    run = find_run(name)
    if not run.finished:
        remedy = f"Run radiffuse {run.config.get('command')} again with the same settings"
        raise InputError(run.folder, "has not finished training", remedy)
    return run


def load_pretrained(run: Run, weights: str = "average") -> Pretrained:
    """The network of a run of radiffuse pretrain, with ``average`` weights or the ``raw`` ones of the last step.

    Raises:
        InputError: The run has another kind of network, or its plan was edited for another network.
    """
    network = load_start(run, weights)
    if not isinstance(network, Pretrained):
        raise not_pretrained(run)
    return network


def load_start(run: Run, weights: str = "average") -> Pretrained | Segmenter:
    """As ``load_pretrained``, or the segmenter of a run of fit, by finetune, scratch or imagenet.

    Raises:
        InputError: Likewise.
    """
    network = load_network(run.model, "raw" if weights == "raw" else "model")
    if isinstance(network, JointDenoiser):
        network = network.image_part()
    if not isinstance(network, Pretrained | Segmenter):
        raise not_pretrained(run)
    verify_edited(run, network)
    if isinstance(body := body_of(network), UNet):
        verify_channels(run, body.config.in_channels - body.coordinate_channels)
    return network


def not_pretrained(run: Run) -> InputError:
    """That the network of a run is none of pre-training."""
    remedy = "Give a run of radiffuse pretrain, of another objective than coordinates"
    return InputError(run.folder, "is not a pre-trained denoiser", remedy)


def load_denoiser(run: Run) -> UNet:
    """The averaged weights where only a U-Net will do, see ``as_unet``."""
    return as_unet(load_pretrained(run), run)


def as_unet(network: UNet | ImageNetUNet, run: Run) -> UNet:
    """The network of a run for what needs timesteps and named features.

    Raises:
        InputError: It has none.
    """
    if not isinstance(network, UNet):
        problem = f"has the network {IMAGENET}, which knows no timesteps"
        remedy = f"Give a run of radiffuse pretrain of another --network.preset than {IMAGENET}"
        raise InputError(run.folder, problem, remedy)
    return network


def body_of(network: Pretrained | Segmenter) -> UNet | ImageNetUNet:
    """The network itself, of a segmenting U-Net the U-Net."""
    return network.unet if isinstance(network, SegmentingUNet) else network


def unet_of(network: UNet | ImageNetUNet) -> UNetConfig | None:
    """The U-Net that a network is; None where it is another."""
    return network.config if isinstance(network, UNet) else None


def settings_of_network(network: UNet | ImageNetUNet) -> Network:
    """The settings that specify a network."""
    unet = unet_of(network)
    return Network(preset=IMAGENET) if unet is None else network_settings(unet)


def load_regressor(run: Run) -> CoordinateRegressor:
    """The network of a run of the objective coordinates.

    Raises:
        InputError: The run has another kind of network.
    """
    regressor = load_network(run.model)
    if not isinstance(regressor, CoordinateRegressor):
        remedy = "Give a run of radiffuse pretrain --objective coordinates"
        raise InputError(run.folder, "gives no body coordinates", remedy)
    return regressor


def verify_kind(dataset: Dataset, run: Run, *, mixed: bool = False) -> None:
    """Refuse images of other channels or axes than those that a run was trained on.

    ``mixed``: films and volumes may lie together, and those of the other kind are left out later.
    """
    plan, remedy = run.plan, "Give images of the same kind, or start from another run"
    if len(plan.channels) != len(dataset.channels):
        mine, theirs = len(dataset.channels), len(plan.channels)
        problem = f"has {mine} channels, {run.folder} was trained on {theirs}"
        raise InputError(dataset.root, problem, remedy)
    if not mixed and (dims := find_dims(dataset)) != plan.spatial_dims:
        kinds = {2: "films", 3: "volumes"}
        problem = f"holds {kinds[dims]}, {run.folder} was trained on {kinds[plan.spatial_dims]}"
        raise InputError(dataset.root, problem, remedy)


def knows_timesteps(run: Run) -> bool:
    """Whether a network to start from has timesteps and named features, as the U-Net of a pre-training does."""
    network = run.config["settings"].get("network") or {}
    return bool(network.get("preset") != IMAGENET) and not is_segmenter(run)


def is_segmenter(run: Run) -> bool:
    """Whether the network of a run segments, so that finetune alone trains it further.

    It is then none of pre-training, or of image and mask together.
    """
    return run.config["settings"].get("method") not in (None, "joint")


def diffusion_of(run: Run) -> Diffusion:
    """The noising process in the settings of a pre-training, or of image and mask together.

    The default where its objective knows none.
    """
    settings = run.config["settings"]
    if not knows_timesteps(run):
        return Diffusion()
    given = settings["joint"]["process"] if "joint" in settings else settings.get("diffusion", {})
    diffusion: Diffusion = from_dict(Diffusion, given)
    return diffusion


def verify_coarse(training: Training, size: Sequence[int], multiple: Sequence[int]) -> None:
    """Refuse steps at half the resolution where half of a size is no multiple that the network needs.

    Raises:
        InputError: Names both.
    """
    if training.coarse and any(n % (2 * m) for n, m in zip(size, multiple, strict=True)):
        half, needed = ("x".join(map(str, n)) for n in ([f"{n / 2:g}" for n in size], multiple))
        problem = f"half of the size is {half}, and the network needs a multiple of {needed}"
        remedy = "Leave it out, or set --size accordingly"
        raise InputError(f"--training.coarse {training.coarse:g}", problem, remedy)


def unet_for(settings: Fit, plan: Plan, start: Start | None = None) -> UNetConfig:
    """The U-Net to train: that of the pre-trained network, else that of the settings with an output per class.

    Raises:
        InputError: It cannot be built, or the plan's size does not fit it.
    """
    unet = (
        start.denoiser.config
        if start
        else resolve_network(
            settings.network,
            spatial_dims=plan.spatial_dims,
            in_channels=len(plan.channels),
            out_channels=len(plan.classes),
        )
    )
    verify_size(plan.size, unet)
    verify_memory(plan.size, unet, settings.machine, training=True)
    return unet


def verify_whole(plan: Plan) -> None:
    """Refuse a plan by which films are seen in patches, for what needs them whole.

    Raises:
        InputError: Names the grid.
    """
    if plan.spatial_dims == 2 and not plan.whole:
        grid, size = ("x".join(map(str, sides)) for sides in (plan.film, plan.size))
        problem = f"makes patches of {size} of a film, and only whole films will do here"
        raise InputError(
            f"grid {grid}", problem, "Leave --plan.grid out, or give it to --size as well"
        )


def verify_size(size: Sequence[int], unet: UNetConfig) -> None:
    """Refuse a network that cannot be built, or that cannot reduce an image of that size at each level.

    Raises:
        InputError: Names the setting, or the multiple that is needed.
    """
    try:
        verify_config(unet)
    except ValueError as error:
        remedy = "Change it; see radiffuse COMMAND --help"
        raise InputError("--network", str(error), remedy) from None
    if any(n % multiple for n, multiple in zip(size, unet.size_multiple, strict=True)):
        where = f"size {'x'.join(map(str, size))}"
        problem = f"the network needs a multiple of {'x'.join(map(str, unet.size_multiple))}"
        remedy = "Set --size accordingly, or use a network with fewer levels"
        raise InputError(where, problem, remedy)
