"""``radiffuse info``: what a run, a folder of weights or a plan is; or its report once more.

Headers are read, never weights, and torch is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Info
from ..config.network import IMAGENET, begins_on_imagenet
from ..data.dataset import counted_patients
from ..data.plan import Plan, read_plan
from ..errors import InputError, printable
from ..system.files import count_parameters, read_json
from ..system.leftovers import sweep
from ..train.members import members_of
from ..train.run import Run, find_run
from ._documents import leave_documents
from ._folders import describe_folder

Lines = list[tuple[str, str]]


def info(settings: Info) -> Path | None:
    """Print in one screen what a run is, without loading the network.

    Returns:
        With ``report`` the page, written again; else None.

    Raises:
        InputError: The path is none of these, or is damaged.
        RunError: A damaged run.
    """
    path = Path(settings.run)
    if settings.report:
        return _write_report(path)
    for name, value in describe(path):
        print(f"{name:<11} {printable(str(value))}")
    return None


def _write_report(folder: Path) -> Path:
    from ..reports.run import write_evaluation_report
    from ..reports.study import write_study_report

    sweep(folder)
    if (folder / "study.yaml").is_file():
        return write_study_report(folder)
    if (folder / "cases.csv").is_file():
        return write_evaluation_report(folder)
    return leave_documents(folder)


def describe(path: Path) -> Lines:
    """Names and values, in the order in which a person wants them.

    Args:
        path: A run folder or the name of shipped weights; a study, an evaluation, masks or images that a command wrote;
            a folder with ``config.json`` and safetensors; or a plan file.

    Raises:
        InputError: It is none of these, or is damaged.
        RunError: A damaged run.
    """
    if path.is_file():
        return [("plan", str(path)), *_plan(read_plan(path))]
    if path.is_dir() and not (path / "config.yaml").exists() and (path / "config.json").exists():
        return [("weights", str(path)), *_weights(path), *_licence(path)]
    if (folder := describe_folder(path)) is not None:
        return folder
    return _run(find_run(str(path)))


def _run(run: Run) -> Lines:
    content, data = run.config, run.data
    settings = content["settings"]
    first = "ImageNet" if begins_on_imagenet(settings) else "scratch"
    parts = members_of(run)
    members = ", ".join(part.folder.name for part in parts if part is not run)
    lines = [
        ("command", f"radiffuse {content.get('command')}"),
        ("radiffuse", str(content.get("radiffuse"))),
        ("data", _data(data)),
        ("members", members) if members else ("from", str(settings.get("from_run") or first)),
    ]
    if (run.folder / "plan.json").exists():
        plans = {part.folder.name: _plan(part.plan if members else run.plan) for part in parts}
        lines += _once(plans)
    if run.finished:
        lines += _once({part.folder.name: _weights(part.model) for part in parts})
    else:
        lines.append(("network", _chosen(settings)))
    rows = run.log()
    steps = [row for row in rows if "loss" in row]
    if steps:
        total = settings.get("training", {}).get("steps")
        last = steps[-1]
        lines.append(("progress", f"step {last['step']} of {total}, loss {last['loss']:.4f}"))
    scores = [row["validation"] for row in rows if "validation" in row]
    if scores:
        lines.append(("validation", ", ".join(f"{k} {v:.4f}" for k, v in scores[-1].items())))
    lines.append(("finished", "yes" if run.finished else "no; the same command goes on"))
    return lines + _licence(run.folder)


def _once(told: Mapping[str, Lines]) -> Lines:
    """The lines of several members; what they have in common once, the rest behind the name of each."""
    lines: Lines = []
    for title, _ in next(iter(told.values())):
        values = {name: dict(of_one)[title] for name, of_one in told.items()}
        if len({*values.values()}) == 1:
            lines.append((title, next(iter(values.values()))))
        else:
            lines += [(title, f"{value} ({name})") for name, value in values.items()]
    return lines


def _data(data: Mapping[str, Any]) -> str:
    if not data:
        return "not known"
    number, _, note = counted_patients(data).partition(" ")
    return f"{data.get('root')}, {data.get('cases')} cases, {number} patients {note}".rstrip()


def _plan(plan: Plan) -> Lines:
    size = " x ".join(map(str, plan.size))
    if plan.spacing:
        size += f" voxels of {' x '.join(f'{mm:g}' for mm in plan.spacing)} mm"
    ends = "percentile" if plan.intensity == "percentiles" else "window"
    lines = [
        ("size", size + ("" if plan.spacing else " pixels") + ("" if plan.whole else " (a patch)")),
        ("channels", ", ".join(plan.channels)),
        ("intensity", f"{ends} {plan.low:g} to {plan.high:g}"),
    ]
    return lines + ([("classes", ", ".join(plan.classes))] if plan.classes else [])


def _weights(folder: Path) -> Lines:
    """The network and its size, of our own folder or that of a diffusers or transformers model."""
    content = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if not isinstance(content, dict):
        raise InputError(folder / "config.json", "is no JSON object", "Restore the file")
    kind = content.get("kind") or content.get("_class_name") or content.get("model_type")
    files = sorted(folder.glob("*.safetensors"), key=lambda file: (file.stem != "model", file))
    chosen = files[0] if files else None
    number = f", {count_parameters(chosen) / 1e6:.1f} M parameters" if chosen else ""
    unet = content.get("unet")
    widths = ""
    if isinstance(unet, dict) and isinstance(unet.get("multipliers"), list):
        channels = [int(unet.get("width", 0)) * int(m) for m in unet["multipliers"]]
        widths = f", channels {' '.join(map(str, channels))}"
    return [("network", f"{kind or 'unknown'}{number}{widths}")]


def _licence(folder: Path) -> Lines:
    """The licences that the README beside the weights names."""
    readme = folder / "README.md"
    if not readme.is_file():
        return []
    text = " ".join(readme.read_text(encoding="utf-8", errors="replace").split())
    _, found, rest = text.partition("**Licence of the weights**:")
    return [("licence", rest.split(" - **")[0].strip())] if found else []


def _chosen(settings: Mapping[str, Any]) -> str:
    """The network of a run that has not finished, by its settings."""
    if settings.get("method") == "dynunet":
        return "MONAI's DynUNet"
    if settings.get("method") == "auto":
        return "not chosen yet"
    if settings.get("method") == "dino":
        return f"a light decoder on the frozen {settings.get('encoder')}"
    if settings.get("method") == IMAGENET:
        return "U-Net on EfficientNet-Lite0"
    network = settings.get("network") or settings.get("denoiser") or {}
    overrides = [f"{k} {v}" for k, v in network.items() if k != "preset" and v is not None]
    return ", ".join([str(network.get("preset")), *overrides])
