"""The record of an automatic choice, ``choice.json``: a command that is repeated goes on from it.

What was decided by the time that was left is in it too, so that a resumed command decides as the first one did.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, Self, TypedDict

from ..config import Fit
from ..config.types import Step
from ..config.values import from_dict, plain
from ..errors import RadiffuseError, damaged
from ..system.cells import csv_text
from ..system.files import read_json, write_atomic, write_json
from ..train.run import CHOICE
from .candidates import POOL, Candidate
from .folds import Folds
from .halving import Entry
from .schedule import SCHEDULES, Schedule
from .trainings import Member

if TYPE_CHECKING:
    import pandas as pd

TABLE = "candidates.csv"
"""Of what was tried, beside the record."""


class Content(TypedDict):
    """Of choice.json."""

    by: str
    folds: list[list[str]]
    hours: float
    seconds: float
    candidates: list[dict[str, Any]]
    left_out: dict[str, str]
    tried: list[dict[str, Any]]
    passed_over: dict[str, str]
    failed: NotRequired[list[str]]
    ensembles: list[dict[str, Any]]
    members: list[Member]
    tta: list[str]
    postprocess: list[Step]
    decisions: list[str]
    finer: NotRequired[list[dict[str, Any]]]
    outlook: NotRequired[str]
    schedule: NotRequired[dict[str, Any]]


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """What was not tried for the same reason, by reason."""
    found: dict[str, list[str]] = {}
    for name, why in reasons.items():
        found.setdefault(why, []).append(name)
    return found


@dataclass
class Record:
    """What was decided and measured so far.

    Attributes:
        path: Of the file.
        folds: Of the labelled cases.
        hours: For everything.
        candidates: What may be tried, the one to beat first.
        left_out: Why others may not, by name.
        tried: What was trained on every fold and scored.
        passed_over: By name and steps, as in ``finetune 300``: why something was not tried to its end.
        failed: Names of candidates that cannot be trained or scored, as where memory was too small.
        ensembles: Several candidates together: ``members``, their Dice and surface Dice, and what Dice gains over
            what is chosen without them.
        finer: Candidates that are trained on all labels on a finer grid than in the folds, or, without folds, than
            with the pool; planned so.
        members: What the result is made of: ``candidate``, ``steps``, ``seed``, and ``tried``, the steps in the folds;
            empty until that is decided.
        tta: Views that are averaged at prediction.
        postprocess: Steps after segmentation.
        decisions: Sentences for people.
        outlook: What more labels would bring, a sentence; empty until that was measured, as far as there was time.
        schedule: How the time is shared.
        before: Seconds of the commands before this one.
        began: When this command did, by the monotonic clock.
    """

    path: Path
    folds: Folds
    hours: float
    candidates: list[Candidate]
    left_out: dict[str, str]
    tried: list[Entry] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    ensembles: list[dict[str, Any]] = field(default_factory=list)
    finer: list[Candidate] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    tta: list[str] = field(default_factory=list)
    postprocess: list[str] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    outlook: str = ""
    schedule: Schedule = SCHEDULES[0]
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def read(cls, folder: Path, began: float) -> Self | None:
        """The record of a folder; None where nothing was decided yet.

        Raises:
            InputError: It is damaged.
        """
        path = folder / CHOICE
        if not path.is_file():
            return None
        content: Content = read_json(path, Content)
        with damaged(path):
            record = cls(
                path,
                folds=Folds(tuple(map(tuple, content["folds"])), content["by"]),
                hours=content["hours"],
                candidates=[_candidate(row) for row in content["candidates"]],
                left_out=content["left_out"],
                tried=[Entry(**row) for row in content["tried"]],
                passed_over=content["passed_over"],
                failed=content.get("failed", _failed(content["passed_over"])),
                ensembles=content["ensembles"],
                finer=[_candidate(row) for row in content.get("finer", ())],
                members=content["members"],
                tta=content["tta"],
                postprocess=content["postprocess"],
                decisions=content["decisions"],
                outlook=content.get("outlook", ""),
                schedule=from_dict(Schedule, content.get("schedule", plain(SCHEDULES[0]))),
                before=content["seconds"],
                began=began,
            )
            record._verify()
        return record

    def _verify(self) -> None:
        """Raise ValueError or KeyError for what editing the file may have broken."""
        for entry in self.tried:
            if {type(n) for n in (entry.dice, entry.surface, entry.seconds)} - {int, float}:
                raise ValueError(
                    f"{entry.candidate} was tried with a score or time that is no number"
                )
            if type(entry.steps) is not int or entry.steps < 1:
                raise ValueError(f"{entry.candidate} was tried with {entry.steps} steps")
        for member in self.members:
            if missing := Member.__annotations__.keys() - member.keys():
                raise ValueError(f"a member has no {min(missing)}")
        known = [one.name for one in self.candidates]
        named = [row.candidate for row in self.tried] + [row["candidate"] for row in self.members]
        named += [name for row in self.ensembles for name in row["members"]]
        if lost := [name for name in named if name not in known]:
            raise ValueError(f"{lost[0]} is not among the candidates")
        if not known:
            raise ValueError("no candidates")

    @property
    def seconds(self) -> float:
        """Taken so far, by this command and those before it."""
        return self.before + time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return 3600 * self.hours - self.seconds

    def count_lost(self) -> None:
        """Count what a kill kept from being written: from the last writing of the file to the last line of a log."""
        written = self.path.stat().st_mtime
        ends = [log.stat().st_mtime for log in self.path.parent.rglob("log.jsonl")]
        self.before += max(written, *ends) - written if ends else 0.0
        self.write()

    @property
    def to_begin_with(self) -> Candidate:
        """The first candidate, unless it failed, as where memory was too small: then the first that did not."""
        given = (one for one in self.candidates if not one.uses_pool)
        whole = (one for one in given if one.name not in self.failed)
        return next(whole, self.candidates[0])

    def candidate(self, name: str) -> Candidate:
        """A candidate by name."""
        return next(one for one in self.candidates if one.name == name)

    def on_all_labels(self, name: str) -> Candidate:
        """The same as it is trained on all labels."""
        return next((one for one in self.finer if one.name == name), self.candidate(name))

    def add_with_pool(self, one: Candidate, given: Fit) -> Candidate:
        """The candidate with the pool of the given settings, which is one of the candidates from now on."""
        found = one.with_pool(given)
        if found.name not in {other.name for other in self.candidates}:
            self.candidates.append(found)
        return found

    def tried_by(self, share: float) -> list[Entry]:
        """What was tried for no more than a share of the steps in full length.

        By it a command that is repeated sees after each round what the first one saw.
        """
        return [e for e in self.tried if e.steps <= self.candidate(e.candidate).steps(share)]

    def entry(self, name: str, steps: int) -> Entry | None:
        """What was tried of a candidate with these steps."""
        return next((e for e in self.tried if (e.candidate, e.steps) == (name, steps)), None)

    def briefest(self, name: str) -> Entry | None:
        """What was tried of a candidate with the fewest steps, without the pool where that was tried.

        What more labels would bring is told by as many.
        """
        proposal = self.candidate(name).proposal
        tried = [entry for entry in self.tried if entry.candidate == proposal]
        tried = tried or [entry for entry in self.tried if entry.candidate == name]
        return min(tried, key=lambda entry: entry.steps, default=None)

    def ahead(self, name: str) -> float:
        """Seconds that it takes to tell what more labels would bring; 0 where nothing was tried to tell it by."""
        brief = self.briefest(name)
        return brief.seconds if brief else 0.0

    def seconds_of_step(self, entry: Entry) -> float:
        """Of a training in the folds, scoring included."""
        return entry.seconds / len(self.folds.parts) / entry.steps

    def folders(self, name: str, steps: int) -> list[Path]:
        """The runs of a candidate with these steps, one per fold."""
        base = self.path.parent / "folds" / name / str(steps)
        return [base / f"fold-{fold}" for fold in range(len(self.folds.parts))]

    def write(self) -> None:
        """Write the file, and the table of what was tried."""
        content: Content = {
            "by": self.folds.by,
            "folds": [list(part) for part in self.folds.parts],
            "hours": self.hours,
            "seconds": round(self.seconds, 1),
            "candidates": [_row(one) for one in self.candidates],
            "left_out": self.left_out,
            "tried": [asdict(entry) for entry in self.tried],
            "passed_over": self.passed_over,
            "failed": self.failed,
            "ensembles": self.ensembles,
            "finer": [_row(one) for one in self.finer],
            "members": self.members,
            "tta": self.tta,
            "postprocess": self.postprocess,
            "decisions": self.decisions,
            "outlook": self.outlook,
            "schedule": plain(self.schedule),
        }
        write_json(self.path, content)
        if self.tried:
            write_atomic(self.path.with_name(TABLE), csv_text(self.table(), "%.4f"))

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Time that ends in a stop or an error counts; the rest of the file stays, since it may be half decided."""
        try:
            yield
        except BaseException:
            with suppress(OSError, RadiffuseError):  # the fault itself is to be told
                content: Content = read_json(self.path, Content)
                write_json(self.path, content | {"seconds": round(self.seconds, 1)})
            raise

    def table(self) -> pd.DataFrame:
        """What was tried, a row each: candidate, steps, Dice, surface Dice (``nsd``) and minutes."""
        import pandas as pd

        rows = [
            {
                "candidate": entry.candidate,
                "steps": entry.steps,
                "dice": entry.dice,
                "nsd": entry.surface,
                "minutes": entry.seconds / 60,
                "what": self.candidate(entry.candidate).why,
            }
            for entry in self.tried
        ]
        return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ internal


def _row(one: Candidate) -> dict[str, Any]:
    """A candidate as the file has it: its name stands for the proposal."""
    values = plain(one)
    return {"name": one.name} | {key: values[key] for key in values if key != "proposal"}


def _failed(passed_over: Mapping[str, str]) -> list[str]:
    """Names of candidates that failed, by a file that does not list them: those not passed over for want of time."""
    return [
        what.rpartition(" ")[0]
        for what, why in passed_over.items()
        if not why.startswith("no time:")
    ]


def _candidate(row: Mapping[str, Any]) -> Candidate:
    values = {"proposal": row["name"]} | {key: row[key] for key in row if key != "name"}
    one: Candidate = from_dict(Candidate, values)
    return replace(one, proposal=one.proposal.removesuffix(POOL)) if one.uses_pool else one
