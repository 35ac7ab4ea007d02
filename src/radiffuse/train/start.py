"""The pre-trained network that a run starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config import (
    PRESETS,
    Diffusion,
    Fit,
    Joint,
    Network,
    PlanSettings,
    Probing,
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
from ..nets.imagenet import ImageNetDenoiser
from ..nets.joint_denoiser import JointDenoiser
from ..nets.registry import load_network
from ..nets.unet import UNet, verify_config
from .edited import verify_channels, verify_edited
from .memory import verify_memory
from .run import Run, find_run

OF_PROCESS = ("schedule", "num_train_timesteps", "prediction_type", "zero_terminal_snr", "shift")
"""Settings of the noising process that a network was trained for."""
Pretrained = UNet | ImageNetDenoiser
"""Networks that pre-training makes; the second knows no timesteps, and starts segmenters alone."""
OF_GRID = ("size", "grid", "spacing", "ceiling")
"""Settings of the plan that a segmenter may change: the network was trained at several scales."""


@dataclass(frozen=True)
class Start:
    """A pre-trained network, the noising process of its run, and whether it learned from noised images."""

    network: Pretrained
    diffusion: Diffusion
    noised: bool
    plan: Plan | None = None

    @property
    def denoiser(self) -> UNet:
        """The network where it is a U-Net that knows timesteps, as ``given_to`` and ``load_denoiser`` see to."""
        assert isinstance(self.network, UNet)
        return self.network

    @property
    def unet(self) -> UNetConfig | None:
        """See ``unet_of``."""
        return unet_of(self.network)

    def keeps_grid(self, settings: Fit) -> bool:
        """Whether only the grid of the run will do: for frozen features, and for coordinates of the body."""
        return settings.method in ("probe", "pixel") or self._coordinate_channels > 0

    @property
    def _coordinate_channels(self) -> int:
        return self.network.coordinate_channels if isinstance(self.network, UNet) else 0

    def given_to(self, settings: Fit) -> Fit:
        """Settings with the intensities and the network of the run, and its grid where no other will do.

        The coordinates that a probe sees are those of a guided network or of ``probe.regressor``, and off without.

        Raises:
            InputError: They ask for others; names the setting.
        """
        assert self.plan is not None
        name = str(settings.from_run)
        given, kept = settings.plan, self.plan.settings()
        free = {} if self.keeps_grid(settings) else {k: getattr(given, k) for k in OF_GRID}
        verify_plan(replace(given, **dict.fromkeys(free)), self.plan, name)
        self._verify_use(settings, name)
        if given.postprocess is not None:
            kept = replace(kept, postprocess=given.postprocess)
        for key in {"size", "grid"} & free.keys():
            if (sides := free[key]) is not None and len(sides) == 1:
                free[key] = sides * self.plan.spatial_dims
        if settings.method == "probe":
            settings = replace(settings, probe=self._probed(settings.probe))
        if settings.method == "joint":
            settings = replace(settings, joint=self._joint(settings.joint, name))
        plan = replace(kept, **free)
        return replace(settings, plan=plan, network=settings_of_network(self.network))

    def _verify_use(self, settings: Fit, name: str) -> None:
        """Refuse another network, and what this one cannot do."""
        verify_network(settings.network, self.network, name)
        if self.unet is not None:
            return
        what = f"{name} has the network {IMAGENET}, which knows no timesteps"
        if settings.method != "finetune":
            raise InputError(f"--method {settings.method}", what, "Use finetune, or another run")
        if settings.finetune.timestep:
            raise InputError(f"--timestep {settings.finetune.timestep}", what, "Leave it out")
        if settings.machine.checkpoint_activations:
            problem = f"{name} has the network {IMAGENET}, whose activations are kept"
            raise InputError("--checkpoint-activations", problem, "Leave it out")

    def _joint(self, joint: Joint, name: str) -> Joint:
        """With the timesteps and the prediction of the run; how the loss weighs them is free.

        Raises:
            InputError: They ask for others, or the network sees coordinates, which noise does not have.
        """
        if self._coordinate_channels:
            problem = f"{name} is guided by body coordinates, which noise does not have"
            remedy = "Start from a run that was pre-trained without --coordinates"
            raise InputError("--method joint", problem, remedy)
        given, usual = joint.process, Diffusion()
        of_run = {key: getattr(self.diffusion, key) for key in OF_PROCESS}
        for key, has in of_run.items():
            if (value := getattr(given, key)) not in (getattr(usual, key), has):
                where = f"--joint.process.{key.replace('_', '-')} {value}"
                problem = f"{name} was trained with {has}"
                raise InputError(where, problem, "Leave it out, or train from scratch")
        return replace(joint, process=replace(given, **of_run))

    def _probed(self, probe: Probing) -> Probing:
        """Without coordinates, where neither the network nor a regressor gives any."""
        if probe.regressor is not None:
            where, run = f"--probe.regressor {probe.regressor}", find_pretrained(probe.regressor)
            load_regressor(run)
            if self.denoiser.coordinate_channels:
                problem = "is not needed: the network is guided, and heads see its own coordinates"
                raise InputError(where, problem, "Leave it out")
            assert self.plan is not None
            ours, theirs = (
                replace(plan.settings(), postprocess=None) for plan in (self.plan, run.plan)
            )
            if ours != theirs:
                keys = [k for k, v in vars(ours).items() if v != getattr(theirs, k)]
                problem = f"was trained with another {' and '.join(keys)} than the network"
                remedy = "Train both with the same --plan settings"
                raise InputError(where, problem, remedy)
        elif not self.denoiser.coordinate_channels:
            if probe.sweep_coordinates:
                problem = "takes no effect: heads on an unguided network see no coordinates"
                remedy = "Leave it out, or give a --probe.regressor"
                raise InputError("--probe.sweep-coordinates", problem, remedy)
            return replace(probe, coordinates=False)
        return probe


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
    network = load_network(run.model, "raw" if weights == "raw" else "model")
    if isinstance(network, JointDenoiser):
        network = network.image_part()
    if not isinstance(network, Pretrained):
        remedy = "Give a run of radiffuse pretrain, of another objective than coordinates"
        raise InputError(run.folder, "is not a pre-trained denoiser", remedy)
    verify_edited(run, network)
    if isinstance(network, UNet):
        verify_channels(run, network.config.in_channels - network.coordinate_channels)
    return network


def load_denoiser(run: Run, weights: str = "average") -> UNet:
    """The same where only a U-Net will do, see ``as_unet``."""
    return as_unet(load_pretrained(run, weights), run)


def as_unet(network: Pretrained, run: Run) -> UNet:
    """The network of a run for what needs timesteps and named features.

    Raises:
        InputError: It has none.
    """
    if not isinstance(network, UNet):
        problem = f"has the network {IMAGENET}, which knows no timesteps"
        remedy = f"Give a run of radiffuse pretrain of another --network.preset than {IMAGENET}"
        raise InputError(run.folder, problem, remedy)
    return network


def unet_of(network: Pretrained) -> UNetConfig | None:
    """The U-Net that a network is; None where it is another."""
    return network.config if isinstance(network, UNet) else None


def settings_of_network(network: Pretrained) -> Network:
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


def verify_plan(given: PlanSettings, plan: Plan, name: str) -> None:
    """Refuse settings that differ from the plan of the run ``name``; post-processing is free."""
    known = plan.settings()
    for key, value in vars(given).items():
        if key == "postprocess" or value is None:
            continue
        has = getattr(known, key)
        sides = key in ("size", "grid") and len(value) == 1
        wanted = value * plan.spatial_dims if sides else value
        if key == "grid" and wanted == plan.film:
            continue
        if wanted != has:
            trained = {
                "size": f"at {' x '.join(map(str, plan.size))} {'pixels' if plan.spatial_dims == 2 else 'voxels'}",
                "window": f"with {plan.intensity} {plan.low:g} to {plan.high:g}",
                "percentiles": f"with {plan.intensity} {plan.low:g} to {plan.high:g}",
            }.get(key, f"with the {key} {_words(has)}")
            _refuse(key, value, name, trained)


def verify_network(given: Network, network: Pretrained, name: str) -> None:
    """Refuse settings that differ from the network of the run ``name``."""
    if not isinstance(network, UNet) or given.preset == IMAGENET:
        known = settings_of_network(network)
        for key, value in vars(given).items():
            if value not in (None, getattr(known, key)):
                _refuse(key, value, name, f"with the network {known.preset or 'of its own'}")
        return
    unet = network.config
    wanted = resolve_network(
        given,
        spatial_dims=unet.spatial_dims,
        in_channels=unet.in_channels,
        out_channels=unet.out_channels,
    )
    values = {k: v for k, v in vars(given).items() if k != "preset" and v is not None}
    for key in dict.fromkeys([*values, *(PRESETS[given.preset] if given.preset else ())]):
        if (has := getattr(unet, key)) == getattr(wanted, key):
            continue
        if key in values:
            _refuse(key, values[key], name, f"with the {key} {_words(has)}")
        own = network_settings(unet).preset or f"of {key} {_words(has)}"
        _refuse("preset", given.preset, name, f"with the network {own}")


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


def _refuse(key: str, value: object, name: str, trained: str) -> None:
    where = f"--{key.replace('_', '-')} {_words(value)}"
    raise InputError(where, f"{name} was trained {trained}", "Leave it out, or train from scratch")


def _words(value: object) -> str:
    return ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def knows_timesteps(run: Run) -> bool:
    """Whether the network of a pre-training has timesteps and named features, as a U-Net does."""
    network = run.config["settings"].get("network") or {}
    return bool(network.get("preset") != IMAGENET)


def diffusion_of(run: Run) -> Diffusion:
    """The noising process in the settings of a pre-training, or of image and mask together.

    The default where its objective knows none.
    """
    settings = run.config["settings"]
    given = settings["joint"]["process"] if "joint" in settings else settings.get("diffusion", {})
    diffusion: Diffusion = from_dict(Diffusion, given)
    return diffusion


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
