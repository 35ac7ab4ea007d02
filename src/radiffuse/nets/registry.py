"""Networks on disk: ``config.json`` holds what to build, safetensors hold the weights. Nothing is unpickled.

A new kind of network is a class with ``to_config`` and a line in ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ..config import Diffusion, UNetConfig
from ..config.values import from_dict
from ..errors import InputError, RunError
from ..system.files import read_json, seal, verify_sums, write_atomic
from .classifier import Classifier
from .coordinates import CoordinateRegressor
from .dynunet import DynUNet
from .guided import GuidedUNet
from .mask_denoiser import MaskDenoiser
from .pixel import PixelClassifier
from .probe import HeadConfig, ProbedNetwork
from .segmenter import Segmenter
from .unet import UNet

REMEDY = "Restore the file from a copy, or train again"
Config = Mapping[str, Any]
"""Content of a ``config.json``."""
Builder = Callable[[Config], nn.Module]


def _unet(config: Config) -> UNet:
    values = from_dict(UNetConfig, config["unet"], strict=True)
    if "coordinates" not in config:
        return UNet(values)
    regressor = build(config["coordinates"])
    if not isinstance(regressor, CoordinateRegressor):
        raise ValueError("its coordinates are no regressor")
    return GuidedUNet(values, regressor)


def _regressor(config: Config) -> CoordinateRegressor:
    scale = tuple(float(v) for v in config["scale"])
    return CoordinateRegressor(from_dict(UNetConfig, config["unet"], strict=True), scale)


def _diffusion(config: Config) -> Diffusion | None:
    values = config["diffusion"]
    return None if values is None else from_dict(Diffusion, values, strict=True)


def _arguments(config: Config, *names: str) -> dict[str, int]:
    return {name: int(config[name]) for name in names}


KINDS: Mapping[str, Builder] = {
    "denoiser": _unet,
    "coordinates": _regressor,
    "classifier": lambda c: Classifier(c["name"], int(c["channels"]), tuple(c["classes"])),
    "dynunet": lambda c: DynUNet(
        int(c["channels"]), int(c["classes"]), c["kernels"], c["strides"], c["filters"]
    ),
    "segmenter": lambda c: Segmenter(_unet(c), int(c["timestep"])),
    "mask-denoiser": lambda c: MaskDenoiser(
        _unet(c), int(c["classes"]), self_condition=bool(c["self_condition"])
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
        RunError: A file is missing, damaged, or does not fit the other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description, path = folder / "config.json", folder / f"{weights}.safetensors"
    for file in (description, path):
        if not file.is_file():
            raise RunError(file, "is missing", "Give a finished run, or train again")
    try:
        config = read_json(description)
        _verify_shapes(config, path)
        network = build(config)
    except RunError:
        raise
    except (InputError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(description, f"describes no network ({error})", REMEDY) from None
    verify_sums(folder, description.name, path.name)
    try:
        tensors = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(path, f"is damaged ({str(error).splitlines()[0]})", REMEDY) from None
    except RuntimeError:
        raise RunError(path, "does not fit config.json", REMEDY) from None
    return network.eval()


def _verify_shapes(config: Mapping[str, Any], path: Path) -> None:
    """Compare the shapes of the description with those of the file, before any memory is allocated.

    Raises:
        RunError: They differ.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with torch.device("meta"):
            wanted = {k: tuple(v.shape) for k, v in build(config).state_dict().items()}
    except (NotImplementedError, RuntimeError):  # a registered network that needs real tensors
        return
    try:
        with safe_open(path, "pt") as file:
            present = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(path, f"is damaged ({str(error).splitlines()[0]})", REMEDY) from None
    if present != wanted:
        raise RunError(path, "does not fit config.json", REMEDY)
