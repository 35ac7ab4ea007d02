"""Begin a run in a folder, or go on with the one that the same command began there.

A run of other settings is refused by name, but for those that the weights do not depend on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ..config import Machine
from ..config.values import completed, flatten, plain
from ..errors import InputError
from ..system.distributed import leading, rank, wait_for_main
from ..system.files import locked, make_folder, refuse_foreign, write_atomic
from .open_settings import fill_as_before
from .run import MARKS, RUN_VERSION, SETTINGS, Run, taken

WITHOUT_EFFECT = {
    "training.validate_every",
    "training.checkpoint_every",
    "training.keep_state",
    "training.log_every",
    "training.wandb",
    "training.mlflow",
    "machine.workers",
    "machine.devices",
    "machine.num_nodes",
    "machine.strategy",
    "machine.scheduler",
    "reader.cache",
    "reader.skip_bad",
    "regressor.landmarks",
    "out",
}
"""Settings that a resumed run may change, because the weights do not depend on them, but for the best by validation."""


@contextmanager
def start_run(
    folder: str | Path, command: str, settings: Any, more: Mapping[str, Any] | None = None
) -> Iterator[Run]:
    """Create a run folder, or resume the one that the same command began; locked while in use.

    Processes that train together are joined first. Rank 0 goes ahead; the others begin when it has prepared everything
    and starts to train, and end with it.

    Args:
        folder: The run folder.
        command: Name of the command.
        settings: Its settings: a dataclass, of which what takes effect is recorded, or plain values.
        more: Further entries of the recorded settings.

    Raises:
        InputError: The folder holds something else, a run of other settings, or is in use.
        SystemExit: This is not rank 0, and rank 0 has failed.
    """
    from .device import make_fabric

    make_fabric(getattr(settings, "machine", Machine()))
    if rank() > 0:
        wait_for_main()
        yield Run(Path(folder))
        wait_for_main()
        return
    # Of settings that an older version of the command did not have.
    defaults = plain(type(settings)())
    recorded = taken(SETTINGS.get(command), plain(settings))
    with leading(), _locked(Path(folder), command, recorded | dict(more or {}), defaults) as run:
        yield run


@contextmanager
def _locked(
    folder: Path, command: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[Run]:
    from .. import __version__

    refuse_foreign(folder, *MARKS)
    path, kept = folder / "config.yaml", folder.is_dir()
    make_folder(folder)
    with locked(folder):
        decided: list[str] = []
        if known := path.exists():
            run = Run.open(folder)
            former = run.config
            settings, decided = fill_as_before(settings, former)
            _refuse_other(run, former, command, settings, defaults)
        content = {
            "command": command,
            "run_version": RUN_VERSION,
            "radiffuse": __version__,
            "settings": dict(settings),
        }
        if decided:
            content["decided"] = decided
        write_atomic(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        try:
            yield Run(folder)
        except InputError:
            if not known:
                _discard(Run(folder), kept)
            raise


def _discard(run: Run, kept: bool) -> None:
    """Remove what was written of a new run that was refused before it learned anything; ``kept``: not the folder."""
    if run.trained or (run.folder / "log.jsonl").exists():
        return
    for name in ("config.yaml", "plan.json", "splits.json", "data.json", "cases.json", ".lock"):
        (run.folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody else's files are in it
        if not kept:
            run.folder.rmdir()


def _refuse_other(
    run: Run,
    content: Mapping[str, Any],
    command: str,
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> None:
    """Refuse another command or other settings, unless nothing was trained yet: then they take over.

    ``content`` is that of the run's ``config.yaml``.
    """
    former, before = content.get("command"), content["settings"]
    if not run.trained:
        if former != command or _given(before) != _given(settings):
            (run.folder / "plan.json").unlink(missing_ok=True)
        return
    if former != command:
        raise InputError(run.folder, f"holds a run of 'radiffuse {former}'", "Choose another --out")
    old, new = flatten(completed(defaults, before)), flatten(settings)
    # With a constant learning rate a run may be extended: its earlier steps stay the same. A pool joins at a fraction,
    # so does full resolution, and a final weight decay is that of the last step.
    free = set(WITHOUT_EFFECT)
    best = command == "fit" and new.get("training.keep") == "best"
    if best and any("validation" in row for row in run.log()):
        free.discard("training.validate_every")
    rate, ends = new.get("training.decay"), new.get("training.decay_steps")
    ends_with_it = (
        new.get("unlabelled")
        or new.get("training.coarse")
        or new.get("training.final_weight_decay") is not None
    )
    may_grow = (rate == "constant" or ends is not None) and not ends_with_it
    if may_grow and not (run.finished and run.reached is None):
        free.add("training.steps")
    for key in (*new, *(key for key in old if key.startswith("custom."))):
        if key not in free and old.get(key) != new.get(key):
            problem = f"holds a run with {key} = {old.get(key)}, not {new.get(key)}"
            remedy = "Choose another --out, or give the same settings to resume"
            if key == "training.steps" and may_grow:
                problem = f"is finished with {old[key]} steps, and kept no checkpoint"
                remedy = "Choose another --out, with --keep-state to go on later"
            raise InputError(run.folder, problem, remedy)


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by full name: what takes no effect is not recorded, and is as good as open."""
    return {name: value for name, value in flatten(settings).items() if value is not None}
