"""Networks on disk: ``config.json`` holds what to build, safetensors hold the weights. Nothing is unpickled.

A new kind of network is a class with ``to_config`` and a line in ``KINDS``.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..config import Diffusion, UNetConfig
from ..config.types import Ramp
from ..config.values import from_dict, misfit
from ..core.finite import not_finite
from ..errors import DAMAGE, InputError, RunError, first_line, is_out_of_memory
from ..system.files import read_json, seal, verify_sums, write_atomic
from .classifier import Classifier
from .coordinates import CoordinateRegressor
from .dino_segmenter import from_config as _dino
from .dynunet import DynUNet
from .guided import GuidedUNet
from .imagenet import ImageNetDenoiser, ImageNetUNet
from .joint_denoiser import JointDenoiser, TwoTimesUNet
from .mask_denoiser import MaskDenoiser
from .pixel import PixelClassifier
from .probe import HeadConfig, ProbedNetwork
from .segmenter import SegmentingUNet
from .unet import UNet

REMEDY = "Restore the file from a copy, or train again"
Config = Mapping[str, Any]
"""Content of a ``config.json``."""
Builder = Callable[[Config], nn.Module]


def _unet(config: Config) -> UNet:
    values = from_dict(UNetConfig, config["unet"], strict=True)
    guide = _guide(config.get("coordinates"))
    return UNet(values) if guide is None else GuidedUNet(values, guide)


def _guide(config: Config | None) -> CoordinateRegressor | None:
    if config is None:
        return None
    regressor = build(config)
    if not isinstance(regressor, CoordinateRegressor):
        raise ValueError("its coordinates are no regressor")
    return regressor


def _regressor(config: Config) -> CoordinateRegressor:
    scale = tuple(float(v) for v in config["scale"])
    ramp, step = config.get("ramp", "none"), config.get("step")
    if fault := misfit(ramp, Ramp, "ramp") or (step and misfit(step, list[float], "step")):
        raise ValueError(fault)
    unet = from_dict(UNetConfig, config["unet"], strict=True)
    return CoordinateRegressor(unet, scale, ramp, step)


def _diffusion(config: Config) -> Diffusion | None:
    values = config["diffusion"]
    return None if values is None else from_dict(Diffusion, values, strict=True)


def _arguments(config: Config, *names: str) -> dict[str, int]:
    """Whole numbers of a configuration."""
    if fault := misfit({name: config[name] for name in names}, dict[str, int]):
        raise ValueError(fault)
    return {name: config[name] for name in names}


def _names(config: Config) -> tuple[str, ...]:
    if fault := misfit(config["classes"], list[str], "classes"):
        raise ValueError(fault)
    return tuple(config["classes"])


KINDS: Mapping[str, Builder] = {
    "denoiser": _unet,
    "coordinates": _regressor,
    "classifier": lambda c: Classifier(c["name"], **_arguments(c, "channels"), classes=_names(c)),
    "dynunet": lambda c: DynUNet(
        **_arguments(c, "channels", "classes"),
        kernels=c["kernels"],
        strides=c["strides"],
        filters=c["filters"],
    ),
    "dino": _dino,
    "imagenet": lambda c: ImageNetUNet(**_arguments(c, "channels", "classes")),
    "imagenet-denoiser": lambda c: ImageNetDenoiser(**_arguments(c, "channels")),
    "segmenter": lambda c: SegmentingUNet(_unet(c), **_arguments(c, "timestep")),
    "mask-denoiser": lambda c: MaskDenoiser(
        _unet(c), **_arguments(c, "classes"), self_condition=bool(c["self_condition"])
    ),
    "joint-denoiser": lambda c: JointDenoiser(
        TwoTimesUNet(from_dict(UNetConfig, c["unet"], strict=True)),
        **_arguments(c, "classes", "timesteps"),
    ),
    "pixel": lambda c: PixelClassifier(
        _unet(c),
        from_dict(Diffusion, c["diffusion"], strict=True),
        **_arguments(c, "classes", "seed", "voters"),
    ),
    "probe": lambda c: ProbedNetwork(
        _unet(c),
        _diffusion(c),
        heads=[from_dict(HeadConfig, head, strict=True) for head in c["heads"]],
        **_arguments(c, "classes", "width", "seed", "draws"),
        regressor=_guide(c.get("regressor")),
    ),
}
"""How to build each kind of network, its weights yet to be loaded."""

REGISTERED: dict[str, Builder] = {}
"""The same for networks of users of the library."""


class Saveable(Protocol):
    """A network that knows its configuration."""

    def to_config(self) -> dict[str, Any]:
        """Content of ``config.json``, from which ``build`` makes the network again."""

    def state_dict(self) -> dict[str, Tensor]:
        """Weights by name."""


def register(kind: str, build: Builder) -> None:
    """Register a network of your own, so that runs with it can be loaded in this process.

    Args:
        kind: The ``kind`` in the ``to_config()`` of the network; choose one that is not in ``KINDS``.
        build: Makes the network, its weights yet to be loaded, from what ``to_config()`` returned.
    """
    REGISTERED[kind] = build


def build(config: Config) -> nn.Module:
    """The network that a ``config.json`` describes, its weights yet to be loaded.

    Raises:
        ValueError, TypeError, KeyError: The description is not valid.
    """
    make = REGISTERED.get(config["kind"]) or KINDS.get(config["kind"])
    if make is None:
        problem = f"unknown kind {config['kind']!r}; a network of one's own is registered first"
        raise ValueError(problem)
    return make(config)


def save_network(network: nn.Module, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a network with ``to_config`` into a folder; the configuration last, since it marks the model as complete.

    ``dtype`` as in ``save_weights``.
    """
    save_weights(network, folder / "model.safetensors", dtype)
    seal(folder, "config.json", cast(Saveable, network).to_config())


def save_weights(network: nn.Module, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write the weights alone to a ``.safetensors`` file, atomically; floating ones as ``dtype``, if given."""
    from safetensors.torch import save

    tensors = {}
    for name, tensor in network.state_dict().items():
        kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.detach().cpu().to(kind).contiguous().clone()
    write_atomic(path, save(tensors))


def load_network(folder: Path, weights: str = "model") -> nn.Module:
    """Read a network, on the CPU and in evaluation mode.

    Raises:
        RunError: A file is missing, damaged, does not fit the other, or holds weights that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description, path = folder / "config.json", folder / f"{weights}.safetensors"
    for file in (description, path):
        if not file.is_file():
            if file is path and _kind(description) == "members":
                remedy = f"Give one of the runs in {folder.parent / 'members'}"
                raise RunError(folder.parent, "is a choice of runs, not a network", remedy)
            raise RunError(file, "is missing", "Give a finished run, or train again")
    try:
        config = read_json(description, dict[str, Any])
        _verify_shapes(config, path)
        network = build(config)
    except RunError:
        raise
    except (*DAMAGE, RuntimeError, InputError) as error:
        if is_out_of_memory(error):
            raise
        reason = error.problem if isinstance(error, InputError) else error
        raise RunError(description, f"describes no network ({reason})", REMEDY) from None
    verify_sums(folder, description.name, path.name)
    try:
        tensors = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(path, f"is damaged ({first_line(error)})", REMEDY) from None
    except RuntimeError:
        raise RunError(path, "does not fit config.json", REMEDY) from None
    # What users' own networks keep besides weights may be infinite, such as the mask of an attention.
    own = config["kind"] in REGISTERED
    if name := not_finite(dict(network.named_parameters()) if own else tensors):
        raise RunError(path, f"holds weights that are not finite ({name})", REMEDY)
    return network.eval()


def _kind(description: Path) -> object:
    content = read_json(description)
    return content.get("kind") if isinstance(content, dict) else None


@contextmanager
def _bounded(most: int) -> Iterator[None]:
    """Stop building a network whose description makes many more tensors than its file has.

    Raises:
        ValueError: More than ``most`` were made.
    """
    thread, count = threading.get_ident(), 0

    def made(module: nn.Module, name: str, tensor: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > most:
            raise ValueError(f"more than {most} tensors")

    hook = register_module_parameter_registration_hook(made)
    try:
        yield
    finally:
        hook.remove()


@functools.lru_cache(maxsize=64)
def _shapes(config: str, most: int) -> dict[str, tuple[int, ...]]:
    """What a description in JSON asks of its file, found without memory for weights; many files have the same one."""
    with torch.device("meta"), _bounded(most):
        network = build(json.loads(config))
    return {k: tuple(v.shape) for k, v in network.state_dict().items()}


def _verify_shapes(config: Mapping[str, Any], path: Path) -> None:
    """Compare the shapes of the description with those of the file, before any memory is allocated.

    Raises:
        RunError: They differ.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            present = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(path, f"is damaged ({first_line(error)})", REMEDY) from None
    try:
        find = _shapes.__wrapped__ if REGISTERED else _shapes  # what users register may change
        wanted = find(json.dumps(config), 10 * len(present) + 1000)
    except (NotImplementedError, RuntimeError):
        if config["kind"] in REGISTERED:  # it may need real tensors
            return
        raise
    if present != wanted:
        raise RunError(path, "does not fit config.json", REMEDY)
