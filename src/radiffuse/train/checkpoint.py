"""Checkpoints of safetensors and JSON; written whole or not at all, and verified before they are used.

``state/step-00000500/`` holds one file of tensors per part (network, average, optimizer, task) and ``state.json``
with the step, the hash of every file, and a hash of itself. The folder is renamed into place when complete: a kill
never harms older ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config.values import plain
from ..core.finite import not_finite
from ..errors import InputError, RadiffuseError, RunError, first_line, is_out_of_memory
from ..system.files import PARTIAL, json_text, read_json, sha256, whole_folder, write_json

CHECKPOINT_VERSION = 2
"""Version 1 had no hash of ``state.json``; it is read, since its values are compared with the settings all the same."""
KEEP = 2
MISFITS = (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
"""What torch and Python raise for values of another network."""
IMPLEMENTATION = {"lr", "params", "foreach", "fused", "capturable", "differentiable"}
"""Entries of an optimizer's group that say how it computes; the learning rate is set in every step."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to resume.

    Attributes:
        step: Optimizer steps done.
        tensors: Flat tensors by part: ``network``, ``average``, ``optimizer``, ``task``.
        info: JSON-able values of the optimizer, and others that must be the same on resuming.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    info: Mapping[str, Any]


def save_checkpoint(state: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and remove all but the newest ``KEEP``.

    Raises:
        InputError: The disk is full or the folder cannot be written; older checkpoints stay.
    """
    from safetensors.torch import save_file

    final = state / _name(checkpoint.step)
    try:
        with whole_folder(final) as partial:
            hashes = {}
            for name, tensors in checkpoint.tensors.items():
                path = partial / f"{name}.safetensors"
                contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
                save_file(contiguous, path)
                hashes[path.name] = sha256(path)
            content = {"version": CHECKPOINT_VERSION, "step": checkpoint.step, "files": hashes}
            content["info"] = dict(checkpoint.info)
            write_json(partial / "state.json", content | {"sha256": _hash(content)})
    except InputError as error:
        problem = f"the checkpoint of step {checkpoint.step} {error.problem}"
        remedy = "Free the disk; the same command goes on from the checkpoint before"
        raise InputError(state, problem, remedy) from None
    drop_old(state)
    return final


def drop_old(state: Path) -> None:
    """Remove all checkpoints but the newest ``KEEP``."""
    for old in _checkpoints(state)[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def drop_all(state: Path) -> None:
    """Remove all checkpoints at once: a kill may not leave older ones, from which a finished run would train again."""
    partial = state.with_name(f".{state.name}{PARTIAL}")  # swept when the run is opened again
    shutil.rmtree(partial, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.replace(state, partial)
    shutil.rmtree(partial, ignore_errors=True)


def load_newest(state: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; damaged ones are named on stderr and skipped."""
    from safetensors import SafetensorError

    damage = (InputError, OSError, SafetensorError, *MISFITS)
    folders = _checkpoints(state)
    for number, folder in enumerate(folders, start=1):
        try:
            return _load(folder)
        except damage as error:
            if is_out_of_memory(error):
                raise
            last = number == len(folders)
            then = "starting from the beginning" if last else "using the one before"
            print(f"radiffuse: {folder}: is damaged ({first_line(error)}); {then}", file=sys.stderr)
    return None


def _load(folder: Path) -> Checkpoint:
    from safetensors.torch import load_file

    state = read_json(folder / "state.json")
    known, step = state.pop("sha256", None), state["step"]
    if state["version"] not in (1, CHECKPOINT_VERSION):
        raise ValueError(f"version {state['version']}")
    if state["version"] != 1 and known != _hash(state):
        raise ValueError("state.json does not match its hash")
    if type(step) is not int or folder.name != _name(step):
        raise ValueError(f"state.json is of step {step}")
    tensors = {}
    for name, expected in state["files"].items():
        path = folder / Path(name).name
        if sha256(path) != expected:
            raise ValueError(f"{name} does not match its hash")
        tensors[path.stem] = load_file(path)
    for part in ("network", "average", "best"):
        if name := not_finite(tensors.get(part, {})):
            raise ValueError(f"{name} of the {part} is not finite")
    return Checkpoint(step, tensors, state["info"])


@contextlib.contextmanager
def fitting(state: Path, checkpoint: Checkpoint) -> Iterator[None]:
    """Turn what goes wrong with a checkpoint of another network or other settings into one line.

    Raises:
        RunError: Names the checkpoint and what does not fit.
    """
    try:
        yield
    except RadiffuseError:
        raise
    except MISFITS as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        remedy = "Restore the run as it was, or choose another --out"
        where = state / _name(checkpoint.step)
        raise RunError(where, f"does not fit the run ({reason})", remedy) from None


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_text(content).encode("utf-8")).hexdigest()


def _checkpoints(state: Path) -> list[Path]:
    return sorted(state.glob("step-*"), reverse=True) if state.is_dir() else []


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as flat tensors and JSON-able values."""
    content = optimizer.state_dict()
    tensors, scalars = {}, {}
    for index, entry in content["state"].items():
        for key, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                scalars[f"{index}.{key}"] = value
    return tensors, {"scalars": scalars, "groups": content["param_groups"]}


def unflatten_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    info: Mapping[str, Any],
    scheduled: Collection[str] = (),
) -> dict[str, Any]:
    """The state dictionary that ``flatten_optimizer`` took apart, for an optimizer of the same settings.

    ``scheduled``: settings of groups that are set anew in every step, and so may differ.

    Raises:
        ValueError: A moment has another shape than its weight, or a setting another value than the optimizer's.
    """
    groups = optimizer.state_dict()["param_groups"]
    for own, saved in zip(groups, info["groups"], strict=True):
        for key in (own.keys() & saved.keys()) - IMPLEMENTATION.union(scheduled):
            if plain(saved[key]) != plain(own[key]):
                raise ValueError(f"{key} is {saved[key]}, the settings give {own[key]}")
        if saved["params"] != own["params"]:
            raise ValueError("the optimizer has other weights")
    shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *info["scalars"].items()]:
        index, _, key = name.partition(".")
        if not 0 <= int(index) < len(shapes):
            raise ValueError(f"the optimizer has no weight {index}")
        if key != "step" and value.shape != shapes[int(index)]:
            raise ValueError(f"{name} has shape {[*value.shape]}, not {[*shapes[int(index)]]}")
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": groups}


def in_order_of_weights(
    optimizer: torch.optim.Optimizer, content: dict[str, Any]
) -> dict[str, Any]:
    """The state dictionary with moments in the memory layout of their weights, which fused optimizers require."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, entry in content["state"].items():
        for key, value in entry.items():
            if isinstance(value, Tensor) and value.shape == parameters[index].shape:
                entry[key] = torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)
    return content
