"""Checkpoints of safetensors and JSON; written whole or not at all, and verified before they are used.

``state/step-00000500/`` holds one file of tensors per part (network, average, optimizer, task) and ``state.json``
with the step and the hash of every file. The folder is renamed into place when complete: a kill never harms older ones.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..system.files import read_json, sha256, whole_folder, write_json

CHECKPOINT_VERSION = 1
KEEP = 2


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

    final = state / f"step-{checkpoint.step:08d}"
    try:
        with whole_folder(final) as partial:
            hashes = {}
            for name, tensors in checkpoint.tensors.items():
                path = partial / f"{name}.safetensors"
                contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
                save_file(contiguous, path)
                hashes[path.name] = sha256(path)
            state_json = {"version": CHECKPOINT_VERSION, "step": checkpoint.step, "files": hashes}
            write_json(partial / "state.json", state_json | {"info": dict(checkpoint.info)})
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


def load_newest(state: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; damaged ones are named on stderr and skipped."""
    from safetensors import SafetensorError

    damage = (InputError, OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError)
    for folder in _checkpoints(state):
        try:
            return _load(folder)
        except damage as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            line = f"radiffuse: {folder}: is damaged ({reason}); using the one before"
            print(line, file=sys.stderr)
    return None


def _load(folder: Path) -> Checkpoint:
    from safetensors.torch import load_file

    state = read_json(folder / "state.json")
    if state["version"] != CHECKPOINT_VERSION:
        raise ValueError(f"version {state['version']}")
    tensors = {}
    for name, expected in state["files"].items():
        path = folder / Path(name).name
        if sha256(path) != expected:
            raise ValueError(f"{name} does not match its hash")
        tensors[path.stem] = load_file(path)
    return Checkpoint(int(state["step"]), tensors, state["info"])


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


def unflatten_optimizer(tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> dict[str, Any]:
    """The state dictionary that ``flatten_optimizer`` took apart."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *info["scalars"].items()]:
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": info["groups"]}


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
