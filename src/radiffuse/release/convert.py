"""``radiffuse convert``: a denoiser that others trained, as a pre-trained run that every command starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import Convert, Diffusion, PlanSettings, Pretrain, UNetConfig
from ..config.given import refuse_given
from ..config.values import to_dict
from ..core.finite import not_finite
from ..data.plan import Plan
from ..errors import InputError, first_line
from ..nets.registry import save_network
from ..nets.unet import UNet
from ..system.files import read_json, write_atomic
from ..train.run import Run
from ..train.start_run import start_run
from .card import write_card
from .convert_configs import diffusers_config, guided_config, monai_config
from .convert_names import DIFFUSERS, GUIDED, MONAI, head_by_head, renamed

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
EXPECTED = "Expected is a folder with config.json and model.safetensors; see docs/how-to/export.md"
BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}
"""Of the schedules that are known here, as diffusers spells them: first and last."""
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "epsilon", "sample": "x_start", "v_prediction": "v"}


def convert(settings: Convert) -> Run:
    """Write a pre-trained run from weights of diffusers, MONAI or guided-diffusion.

    Returns:
        The run, which ``--from`` takes.

    Raises:
        InputError: The network is another one than here, names what differs; or the weights are pickled, missing or
            damaged.
    """
    network, plan, recorded = open_foreign(settings)
    with start_run(settings.out, "pretrain", recorded) as run:
        write_atomic(run.folder / "plan.json", plan.to_json())
        run.write_data({"root": recorded["data"], "converted": recorded["converted"]["kind"]})
        save_network(network.eval(), run.model)
        write_card(run.folder)
    return run


def open_foreign(settings: Convert) -> tuple[UNet, Plan, dict[str, Any]]:
    """Read the weights; nothing is written.

    Returns:
        The network, its plan, and the settings of the run that it becomes.

    Raises:
        InputError: As ``convert``.
    """
    home = Path(settings.weights)
    folder = home / "unet" if (home / "unet").is_dir() else home
    path = _weights(folder)
    content = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    state = _state(path)
    kind = settings.kind if settings.kind != "auto" else _kind(content)
    for name in ("heads", "head_channels", "attention_order"):
        if kind != "guided-diffusion" and getattr(settings, name) is not None:
            remedy = "Leave it out: config.json tells it"
            raise InputError(f"--{name.replace('_', '-')}", f"is not for weights of {kind}", remedy)
    try:
        network = _network(kind, content, state, settings)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        problem = f"is another network than here: {first_line(error)}"
        raise InputError(folder, problem, EXPECTED) from None
    config = network.config
    diffusion = _diffusion(home / "scheduler" / "scheduler_config.json", settings.diffusion)
    plan = _plan(settings.plan, config, content.get("sample_size"))
    diffusion = replace(diffusion, variance=_variance(config, diffusion, folder))
    refuse_given(
        settings.diffusion,
        Convert().diffusion,
        "schedule num_train_timesteps prediction_type zero_terminal_snr variance",
        "the weights and their scheduler tell it",
        "diffusion.",
        obeyed=diffusion,
    )
    pretended = Pretrain(data=home.name, out=settings.out, diffusion=diffusion)
    recorded = to_dict(pretended) | {"converted": {"kind": kind, "weights": home.name}}
    return network, plan, recorded


# ------------------------------------------------------------------------------------------------ internal


def _weights(folder: Path) -> Path:
    if folder.is_file() and folder.suffix == ".safetensors":
        return folder
    if folder.is_file() and folder.suffix in PICKLED:
        raise _pickled(folder)
    if not folder.is_dir():
        raise InputError(folder, "does not exist", EXPECTED)
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLED:
            raise _pickled(path)
    raise InputError(folder, "holds no safetensors", EXPECTED)


def _pickled(path: Path) -> InputError:
    remedy = (
        "In a place you trust, write them anew with safetensors.torch.save_file(state_dict, ...)"
    )
    return InputError(path, "is pickled, which can run code and is never loaded here", remedy)


def _state(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = {k: v.float() for k, v in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(path, f"is damaged ({first_line(error)})", "Copy it again") from None
    if name := not_finite(state):
        raise InputError(path, f"holds weights that are not finite ({name})", "Copy it again")
    return state


def _kind(content: Mapping[str, Any]) -> str:
    if "_class_name" in content:
        return "diffusers"
    return "monai" if "spatial_dims" in content else "guided-diffusion"


def _network(
    kind: str, content: Mapping[str, Any], state: Mapping[str, Tensor], settings: Convert
) -> UNet:
    if kind == "diffusers":
        config, naming = diffusers_config(content), DIFFUSERS
    elif kind == "monai":
        config, naming = monai_config(content), MONAI
    else:
        naming = GUIDED
        config = guided_config(state, heads=settings.heads, head_channels=settings.head_channels)
        if config.heads != 1 and settings.attention_order is None:
            problem = "is missing: the weights do not tell it"
            remedy = "Give new if it was trained with use_new_attention_order, else legacy"
            raise InputError("--attention-order", problem, remedy)
        if settings.attention_order == "new":
            state = head_by_head(state, config)
    network = UNet(config)
    network.load_state_dict(renamed(state, config, naming))
    return network


def _diffusion(path: Path, given: Diffusion) -> Diffusion:
    """The process of a pipeline's scheduler; without one, what the settings say."""
    if not path.is_file():
        return given
    content = read_json(path)
    schedule = str(content.get("beta_schedule", "linear"))
    prediction = str(content.get("prediction_type", "epsilon"))
    if content.get("trained_betas") is not None or schedule not in SCHEDULES:
        raise InputError(path, f"has the schedule {schedule}", f"Known are {', '.join(SCHEDULES)}")
    if prediction not in PREDICTIONS:
        known = f"Known are {', '.join(PREDICTIONS)}"
        raise InputError(path, f"has the prediction {prediction}", known)
    betas = float(content.get("beta_start", 1e-4)), float(content.get("beta_end", 0.02))
    if schedule in BETAS and betas != BETAS[schedule]:
        first, last = BETAS[schedule]
        problem = (
            f"has betas from {betas[0]:g} to {betas[1]:g}; {schedule} is {first} to {last} here"
        )
        raise InputError(path, problem, "Such a process is not known here")
    return replace(
        given,
        schedule=SCHEDULES[schedule],  # type: ignore[arg-type]
        num_train_timesteps=int(content.get("num_train_timesteps", 1000)),
        prediction_type=PREDICTIONS[prediction],  # type: ignore[arg-type]
        zero_terminal_snr=bool(content.get("rescale_betas_zero_snr", False)),
    )


def _variance(config: UNetConfig, diffusion: Diffusion, folder: Path) -> Any:
    if config.out_channels == 2 * config.in_channels:
        return "learned"
    if config.out_channels != config.in_channels:
        problem = f"takes {config.in_channels} channels and gives {config.out_channels}"
        remedy = (
            "Give a denoiser of images: as many, or twice as many where the variance is learned"
        )
        raise InputError(folder, problem, remedy)
    return "fixed_small" if diffusion.variance == "learned" else diffusion.variance


def _plan(settings: PlanSettings, config: UNetConfig, sample_size: Any) -> Plan:
    dims, multiple = config.spatial_dims, config.size_multiple
    size = settings.size
    if size is None and sample_size:
        size = tuple(sample_size) if isinstance(sample_size, list) else (int(sample_size),)
    if size is None:
        raise InputError("--size", "is missing: the weights do not tell it", "Give it in pixels")
    size = size * dims if len(size) == 1 else tuple(size)
    if len(size) != dims or any(n % m or n < 8 for n, m in zip(size, multiple, strict=True)):
        problem = f"does not fit: multiples of {'x'.join(map(str, multiple))}, 8 or more"
        raise InputError(f"--size {','.join(map(str, size))}", problem, "Choose another size")
    if dims == 3 and settings.spacing is None:
        raise InputError("--spacing", "is missing: volumes need one", "Give three numbers in mm")
    count = config.in_channels
    foreign, kind = ("grid spacing", "films") if dims == 2 else ("grid resize", "volumes")
    refuse_given(settings, PlanSettings(), foreign, f"the network sees whole {kind}", "plan.")
    low, high = settings.window or settings.percentiles or (0.5, 99.5)
    return Plan(
        spatial_dims=dims,
        channels=("image",) if count == 1 else tuple(f"channel-{i}" for i in range(count)),
        classes=(),
        size=size,
        spacing=settings.spacing if dims == 3 else None,
        resize=settings.resize or "stretch",
        intensity="window" if settings.window else "percentiles",
        low=float(low),
        high=float(high),
        postprocess=settings.postprocess or (),
        crop=settings.crop,
    )
