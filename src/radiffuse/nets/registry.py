"""A network on disk: ``config.json`` says what to build, safetensors hold the weights. Nothing is unpickled."""

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
from .coordinates import CoordinateRegressor
from .guided import GuidedUNet
from .mask_denoiser import MaskDenoiser
from .pixel import PixelClassifier
from .probe import HeadConfig, ProbedNetwork
from .segmenter import Segmenter
from .unet import UNet

REMEDY = "Restore the file from a copy, or train again"
REGISTERED: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {}
"""Networks of others, by the ``kind`` of their configuration."""


class Saveable(Protocol):
    """A network that can say how to build it."""

    def to_config(self) -> dict[str, Any]:
        """Plain values for ``build``."""

    def state_dict(self) -> dict[str, Tensor]:
        """Weights by name."""


def register(kind: str, build: Callable[[Mapping[str, Any]], nn.Module]) -> None:
    """Make a network of one's own known, so that runs with it can be loaded in this process.

    Args:
        kind: What ``to_config()`` of the network has under ``kind``; names of this package stay its own.
        build: From what ``to_config()`` gave to the network, its weights yet to be loaded.
    """
    REGISTERED[kind] = build


def build(config: Mapping[str, Any]) -> nn.Module:
    """The network that a ``config.json`` describes, with weights yet to be loaded.

    Raises:
        ValueError, TypeError, KeyError: The description is not one.
    """
    if config["kind"] in REGISTERED:
        return REGISTERED[config["kind"]](config)
    if "unet" not in config and config["kind"] not in ("classifier", "dynunet"):
        problem = f"unknown kind {config['kind']!r}; a network of one's own is registered first"
        raise ValueError(problem)
    if config["kind"] == "coordinates":
        scale = tuple(float(v) for v in config["scale"])
        return CoordinateRegressor(from_dict(UNetConfig, config["unet"], strict=True), scale)
    if config["kind"] == "classifier":
        from .classifier import Classifier

        return Classifier(config["name"], int(config["channels"]), tuple(config["classes"]))
    if config["kind"] == "dynunet":
        from .dynunet import DynUNet

        parts = (config[name] for name in ("kernels", "strides", "filters"))
        return DynUNet(int(config["channels"]), int(config["classes"]), *parts)
    unet = _unet(config)
    if config["kind"] == "denoiser":
        return unet
    if config["kind"] == "segmenter":
        return Segmenter(unet, int(config["timestep"]))
    if config["kind"] == "mask-denoiser":
        classes, conditioned = int(config["classes"]), bool(config["self_condition"])
        return MaskDenoiser(unet, classes, self_condition=conditioned)
    if config["kind"] == "pixel":
        return PixelClassifier(
            unet,
            from_dict(Diffusion, config["diffusion"], strict=True),
            int(config["classes"]),
            seed=int(config["seed"]),
            voters=int(config["voters"]),
        )
    if config["kind"] == "probe":
        noised = config["diffusion"] is not None
        return ProbedNetwork(
            unet,
            from_dict(Diffusion, config["diffusion"], strict=True) if noised else None,
            int(config["classes"]),
            [from_dict(HeadConfig, head, strict=True) for head in config["heads"]],
            width=int(config["width"]),
            seed=int(config["seed"]),
            draws=int(config["draws"]),
        )
    raise ValueError(f"unknown kind {config['kind']!r}")


def _unet(config: Mapping[str, Any]) -> UNet:
    values = from_dict(UNetConfig, config["unet"], strict=True)
    if "coordinates" not in config:
        return UNet(values)
    regressor = build(config["coordinates"])
    if not isinstance(regressor, CoordinateRegressor):
        raise ValueError("its coordinates are no regressor")
    return GuidedUNet(values, regressor)


def save_network(network: nn.Module, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a network; the configuration last, since it marks the model as complete.

    Args:
        network: A network with ``to_config``.
        folder: Where to.
        dtype: Store floating weights in this type; None: as they are.
    """
    save_weights(network, folder / "model.safetensors", dtype)
    seal(folder, "config.json", cast(Saveable, network).to_config())


def save_weights(network: nn.Module, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write the weights alone, atomically.

    Args:
        network: Any network.
        path: A ``.safetensors`` file.
        dtype: Store floating weights in this type; None: as they are.
    """
    from safetensors.torch import save

    tensors = {
        name: tensor.detach()
        .cpu()
        .to(dtype if dtype and tensor.is_floating_point() else tensor.dtype)
        .contiguous()
        .clone()
        for name, tensor in network.state_dict().items()
    }
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
    """Compare the weights that a description asks for with those of the file, before memory is taken for them.

    Raises:
        RunError: They differ.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with torch.device("meta"):
            wanted = {k: tuple(v.shape) for k, v in build(config).state_dict().items()}
    except (NotImplementedError, RuntimeError):  # a network of others that has to see numbers
        return
    try:
        with safe_open(path, "pt") as file:
            found = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(path, f"is damaged ({str(error).splitlines()[0]})", REMEDY) from None
    if found != wanted:
        raise RunError(path, "does not fit config.json", REMEDY)
