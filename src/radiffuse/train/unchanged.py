"""Once anything was trained or scored, other cases, contents, parts or plans are refused by name.

``cases.json`` of a run or study holds the names of its cases with a digest of what each is: of a run the image and
label as the network sees them, of a study the files themselves, and of both patient and class.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.values import plain
from ..data.arrays import logged_rows
from ..data.cases import remembered_hash
from ..data.dataset import Case, Dataset
from ..data.issues import some
from ..data.plan import Plan
from ..data.prepare import voxels_behind
from ..data.prepared import Prepared
from ..data.splits import PARTS, Splits, read_splits, write_splits
from ..errors import InputError, RunError
from ..system.distributed import rank
from ..system.files import read_json, write_json
from ..system.saying import say
from .run import Run

FILE = "cases.json"
REMEDY = "Give the data as they were, or choose another --out"
SHOWN = 3
"""Most names in a message."""
Digests = Mapping[str, str]
"""By name of case; '' where its content does not matter."""


def require_same_names(
    folder: Path, names: Iterable[str], *, trained: bool, group: str = "cases"
) -> None:
    """Refuse another list of cases than a run or study began with, before they are prepared.

    ``trained``: whether anything was trained or scored there; ``group``: which cases of the folder they are.

    Raises:
        InputError: Names what came and what went.
    """
    before = _recorded(folder).get(group) if trained and rank() == 0 else None
    if before is None:
        return
    now = set(names)
    came, went = sorted(now - before.keys()), sorted(before.keys() - now)
    if came or went:
        found = [
            f"{some(part, SHOWN)} {verb}" for part, verb in ((came, "came"), (went, "went")) if part
        ]
        raise InputError(folder, f"was begun with other cases: {', '.join(found)}", REMEDY)


def standing_plan(
    run: Run, names: Iterable[str], classes: Callable[[], int] | None = None
) -> Plan | None:
    """The plan of a run, which may have been edited; None where it is yet to be made, of these cases.

    Until anything was trained cases may change, and with others than it was made of a plan is made anew.

    Args:
        run: The run.
        names: Of all its cases.
        classes: How many there are; None: nothing is segmented.
    """
    path = run.folder / "plan.json"
    now, recorded = dict.fromkeys(names, ""), _recorded(run.folder)
    if path.exists():
        if run.trained or not run.main:
            return run.plan
        plan, before = run.plan, recorded.get("cases", now)
        if before.keys() == now.keys() and (classes is None or classes() == len(plan.classes)):
            return plan
        say(f"{path}: is made anew, since it is of other cases and nothing was trained by it")
        path.unlink()
    if run.main and not run.trained:
        write_json(run.folder / FILE, recorded | {"cases": now})
    return None


def require_same_cases(
    folder: Path, groups: Mapping[str, Digests], *, trained: bool, grows: bool = False
) -> None:
    """Refuse other cases or other contents, and record those of now; what was recorded of other groups stays.

    Args:
        folder: Of the run or study.
        groups: Digests of all cases, by group of cases.
        trained: Whether anything was trained or scored there; until then, cases may change.
        grows: Whether cases whose content did not matter may come to matter.

    Raises:
        InputError: Names the cases.
    """
    if rank() > 0:
        return
    recorded = _recorded(folder)
    before = recorded if trained else {}
    if trained and not before:
        line = f"{folder}: has no record of its cases ({FILE}); those of now are taken for the same"
        print(f"radiffuse: {line}", file=sys.stderr)
    kept: dict[str, Digests] = dict(recorded)
    for group, digests in groups.items():
        require_same_names(folder, digests, trained=trained, group=group)
        known = before.get(group, digests)
        loose = {""} if grows else set[str]()
        pairs = ((name, {known[name], digest}) for name, digest in digests.items())
        if other := [name for name, both in pairs if len(both - loose) > 1]:
            problem = (
                f"was begun with other images, labels, patients or classes of {some(other, SHOWN)}"
            )
            raise InputError(folder, problem, REMEDY)
        kept[group] = {name: digest or known[name] for name, digest in digests.items()}
    write_json(folder / FILE, kept)


def require_same_prepared(run: Run, dataset: Dataset, prepared: Prepared, *more: Prepared) -> None:
    """Refuse another content of a run's cases, or another plan, and record those of now.

    Args:
        run: The run.
        dataset: All cases, of which some may not be prepared.
        prepared: Those that are trained on or validated with.
        *more: Further prepared cases, such as synthetic ones.

    Raises:
        InputError: Names the cases, or the value of the plan.
    """
    groups = {f"with {i}": digests_of_rows(part) for i, part in enumerate(more)}
    whole = dict.fromkeys((case.name for case in dataset), "") | digests_of_rows(prepared)
    # The steps after segmentation change nothing that is trained.
    values = {k: repr(v) for k, v in plain(prepared.plan).items() if k != "postprocess"}
    before = _recorded(run.folder).get("plan", {}) if run.trained and run.main else {}
    for key, value in values.items():
        if before.get(key, value) != value:
            problem = f"was edited after training began: {key} was {before[key]}, is {value}"
            remedy = "Put the value back, or choose another --out"
            raise InputError(run.folder / "plan.json", problem, remedy)
    require_same_cases(run.folder, groups | {"cases": whole}, trained=run.trained)
    if run.main:
        write_json(run.folder / FILE, _recorded(run.folder) | {"plan": values})


def require_same_held_out(run: Run, names: Sequence[str]) -> None:
    """Refuse other held-out cases of unlabelled images than those that a run was validated on.

    Raises:
        InputError: Names the run.
    """
    before = run.data.get("split", {}).get("validation", names) if run.trained else names
    if list(before) != list(names):
        problem = "was begun by a version that held other patients out, or with other images"
        raise InputError(run.folder, problem, "Go on as it was begun, or choose another --out")


def require_same_splits(folder: Path, splits: Splits, *, trained: bool) -> None:
    """Write the splits into ``splits.json`` of a run or study; once anything was trained, its own stand.

    Raises:
        InputError: Names a case that changed its part.
    """
    path = folder / "splits.json"
    if trained and path.is_file():
        own = read_splits(path)
        was, now = ({n: part for part in PARTS for n in s.part(part)} for s in (own, splits))
        for name in sorted(was.keys() | now.keys()):
            if (one := was.get(name, "no part")) != (two := now.get(name, "no part")):
                remedy = "Split as it was, or choose another --out"
                raise InputError(path, f"has {name} in {one}, not in {two}", remedy)
        if any(one != two for one, two in zip(own.draws, splits.draws, strict=False)):
            raise InputError(path, "has other draws of labelled cases", REMEDY)
    write_splits(path, splits)


def digests_of_rows(prepared: Prepared) -> dict[str, str]:
    """Digests of prepared cases: the checksum of the arrays, the patient and the class."""
    sums = logged_rows(prepared.folder)
    pairs = zip(prepared.cases, prepared.rows, strict=True)
    return {case.name: _digest(case, sums.get(row)) for case, row in pairs}


def digests_of_files(dataset: Dataset, used: Collection[str]) -> dict[str, str]:
    """Digests of the files of all cases, '' for those that are not used.

    Raises:
        InputError: A file cannot be read.
    """
    return {case.name: _digest_of_files(case) if case.name in used else "" for case in dataset}


# ------------------------------------------------------------------------------------------------ internal


def _digest(case: Case, content: object) -> str:
    known = (content, case.group, case.target)
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _digest_of_files(case: Case) -> str:
    files = [*(case.series or case.images), *case.label_files]
    files += [extra for file in files for extra in voxels_behind(file)]
    sums = []
    for file in files:
        try:
            sums.append(remembered_hash(file))
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            raise InputError(file, problem, "Restore it, or leave the case out") from None
    threshold = (case.label_threshold,) if case.label_threshold is not None else ()
    return _digest(case, (sums, case.label_item, case.label_values, case.ignore_value, *threshold))


def _recorded(folder: Path) -> dict[str, dict[str, str]]:
    """Content of ``cases.json``; empty where there is none."""
    path = folder / FILE
    content: Any = read_json(path) if path.is_file() else {}
    values = content.values() if isinstance(content, dict) else [content]
    texts = [v for group in values if isinstance(group, dict) for v in group.values()]
    if not all(isinstance(v, dict) for v in values) or not all(isinstance(t, str) for t in texts):
        raise RunError(path, "is no record of cases", "Restore the file, or choose another --out")
    return dict(content)
