"""What nnU-Net's interpreter runs before its training begins: a training for given hours, from given weights.

The text of this file is handed to that interpreter, which has no radiffuse: at the top it imports the standard library
alone, and torch, which is not the one of here, where it is needed.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REFUSED = "radiffuse: "
"""How a line begins that says why the training was refused."""
WARM_UP, TIMED = 2, 3
"""Iterations before those that are timed, which compile or allocate, and the timed ones."""
ITERATIONS, FEWEST, MOST = 250, 10, 1000
"""nnU-Net's iterations of an epoch; fewest and most epochs, since its learning rate falls from one to the next."""


def train_for(
    trainer: Any, seconds: float, note: str, clock: Callable[[], float] = time.monotonic
) -> None:
    """Let a trainer class train for so long, from now on, and not segment its training cases at the end.

    After its start it times a few iterations, forgets what they learned, and sets the number of epochs; the learning
    rate falls to 0 over these, by nnU-Net's polynomial. One validation iteration is left in an epoch, which chooses
    nothing. A resumed training keeps the numbers.

    Args:
        trainer: ``nnUNetTrainer``.
        seconds: For the rest of the process.
        note: File for ``epochs``, ``iterations_per_epoch``, ``iterations`` and ``seconds_per_iteration``.
        clock: Seconds since some moment.
    """
    begun, start = clock(), trainer.on_train_start

    def on_train_start(self: Any) -> None:
        start(self)
        path = Path(note)
        state = copy.deepcopy(self.optimizer.state_dict())
        if not path.is_file():
            each = _seconds_per_iteration(self, clock)
            chosen = epochs_of(int((seconds - (clock() - begun)) / each))
            path.write_text(json.dumps(chosen | {"seconds_per_iteration": round(each, 4)}))
        chosen = json.loads(path.read_text())
        self.num_epochs = chosen["epochs"]
        self.num_iterations_per_epoch = chosen["iterations_per_epoch"]
        self.num_val_iterations_per_epoch = 1
        self.save_every = max(1, self.num_epochs // 10)
        self.optimizer, self.lr_scheduler = (
            self.configure_optimizers()
        )  # it falls over these epochs
        self.optimizer.load_state_dict(state)
        self.logger.plot_progress_png = lambda *_: None

    trainer.on_train_start = on_train_start
    trainer.perform_actual_validation = lambda *_, **__: None


def epochs_of(iterations: int) -> dict[str, int]:
    """How many epochs, and iterations in each, take as long as ``iterations``, one of each epoch being validation."""
    epochs = min(MOST, max(FEWEST, iterations // ITERATIONS), max(1, iterations // 2))
    each = max(1, iterations // epochs - 1)
    return {"epochs": epochs, "iterations_per_epoch": each, "iterations": epochs * each}


def start_from(training: Any) -> None:
    """Let ``-pretrained_weights`` take what fits: the whole encoder, and of the decoder what has the same shape.

    nnU-Net itself wants every layer but the last, which encoders alone do not have (nnssl, OpenMind), and unpickles
    whatever the file holds; here it holds tensors and numbers, or is refused.

    Args:
        training: The module ``nnunetv2.run.run_training``.
    """
    training.load_pretrained_weights = load_weights


def load_weights(network: Any, path: str, verbose: bool = True) -> None:
    """Copy the weights of a checkpoint into a network; ends the process with a line that says why they do not fit."""
    network = getattr(network, "module", network)
    network = getattr(network, "_orig_mod", network)
    given = _read(path)
    own = {k: v for k, v in network.state_dict().items() if ".seg_layers." not in k}
    taken = {k: given[k] for k, v in own.items() if k in given and given[k].shape == v.shape}
    # Modules that are registered twice have two names for one tensor.
    covered = {own[k].data_ptr() for k in taken}
    encoder = [k for k in own if k.startswith("encoder.")]
    missing = [k for k in encoder or own if own[k].data_ptr() not in covered]
    if missing:
        name = missing[0]
        has = f"is {list(given[name].shape)}" if name in given else "is missing"
        wanted = list(own[name].shape)
        _refuse(f"{name} {has}, and nnU-Net's plan has {wanted}; {len(missing)} tensors do not fit")
    network.load_state_dict(taken, strict=False)
    print(f"starts from {len(taken)} of {len(own)} tensors of {path}")


# ------------------------------------------------------------------------------------------------ internal


def _seconds_per_iteration(trainer: Any, clock: Callable[[], float]) -> float:
    """Of training, data included; the weights stay as they were."""
    weights = copy.deepcopy(trainer.network.state_dict())
    trainer.network.train()
    begun = 0.0
    for number in range(WARM_UP + TIMED):
        if number == WARM_UP:
            begun = clock()
        trainer.train_step(next(trainer.dataloader_train))
    each = (clock() - begun) / TIMED
    trainer.network.load_state_dict(weights)
    return max(each, 1e-4)


def _read(path: str) -> dict[str, Any]:
    """Tensors by name, without running what a pickle may ask for."""
    import numpy as np
    import torch

    types = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals([np.dtype, *types, *names]):  # type: ignore[list-item]
            content = torch.load(path, map_location="cpu", weights_only=True)
        weights = dict(content["network_weights"])
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _refuse(f"it is no checkpoint of tensors under network_weights ({reason})")
    for start in ("module.", "_orig_mod."):  # of training on several GPUs, and compiled
        weights = {name.removeprefix(start): value for name, value in weights.items()}
    return weights


def _refuse(problem: str) -> Any:
    print(REFUSED + problem, flush=True)
    sys.exit(4)
