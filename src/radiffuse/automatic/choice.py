"""The method auto from start to end: folds, candidates, rounds, the choice, and the training on all labels."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Fit, Split
from ..data.dataset import Dataset
from ..data.layouts.dicom_headers import reading_headers_once
from ..data.plan import Plan
from ..errors import OF_ONE_NETWORK, InputError, OutOfMemory, first_line, is_out_of_memory
from ..inference.predictor import Predictor
from ..inference.scoring import score_cases
from ..system.distributed import launched
from ..system.files import seal, write_atomic, write_json
from ..system.saying import say
from ..train.cases import open_more
from ..train.further_images import look_at_copies, look_at_further, read_pools
from ..train.log import seconds_of
from ..train.members import MEMBERS
from ..train.planning.configuration import AT_WORK
from ..train.progress import duration
from ..train.run import CHOICE, Run
from ..train.start_run import start_run
from ..train.unchanged import digests_of_files, require_same_cases, require_same_splits
from .candidates import Candidate
from .decision import Decision
from .halving import Entry, seconds_of_fold
from .labels import read_labels
from .opening import described, new_record
from .outlook import look_ahead
from .record import Record
from .scores import SCORED, by_case, leaderboard_of, needless, read_folds
from .trainings import Member, paced, planned_seconds
from .vote import TOGETHER

LATE = 1.1
"""How much more time than given is taken before the reason is said."""
Train = Callable[[Fit, Plan, bool], Run]
"""Trains a run by a method of ``fit`` and a plan, with its report or without."""


def fit_automatically(settings: Fit, train: Train, leave: Callable[[Path], Any]) -> Run:
    """Choose by folds, train what was chosen on all labels, and leave a run that predicts as one.

    Args:
        settings: Of the command.
        train: What trains a candidate.
        leave: Writes the documents of a run folder.

    Raises:
        InputError: Data or settings that cannot be used, or other data than the folder was begun with.
        TrainingDiverged: The loss of a training is not finite.
    """
    began = time.monotonic()
    if (started := launched() or (1, 1)) != (1, 1):
        problem = f"trains on one device, and {math.prod(started)} processes were started"
        raise InputError("--method auto", problem, "Start one process, or name a method")
    with start_run(settings.out, "fit", settings) as run, _cleared(run), reading_headers_once():
        if finished := run.ended:
            say(f"{run.folder} is finished, nothing is left to train")
        automatic = AutomaticFit(settings, run, train, began)
        with automatic.record.counted():
            automatic.rounds()
            automatic.decide()
            automatic.finish()
            automatic.look_ahead()
        leave(run.folder)
        if not finished:
            automatic.say_time()
    return run


@contextmanager
def _cleared(run: Run) -> Iterator[None]:
    """What is refused before anything was decided leaves no folder of folds."""
    try:
        yield
    except InputError:
        if not (run.folder / CHOICE).exists():
            shutil.rmtree(run.folder / "folds", ignore_errors=True)
        raise


class AutomaticFit:
    """What is tried and decided in a run folder; everything that was is read from its record."""

    def __init__(self, settings: Fit, run: Run, train: Train, began: float) -> None:
        self.settings, self.run, self.train = settings, run, train
        self.labels = labels = read_labels(settings, write=True)
        trained = run.trained
        require_same_splits(run.folder, labels.splits, trained=trained)
        further = [open_more(folder, settings.reader) for folder in settings.with_run]
        require_same_cases(run.folder, self._digests(further), trained=trained)
        before = Record.read(run.folder, began)
        if before is not None and not run.ended:
            before.count_lost()
        self.record = before or self._begin(began, sum(map(len, further)))
        self.folds = self.record.folds

    def rounds(self) -> None:
        """Try the candidates, the better ones for longer."""
        record, pool = self.record, bool(self.settings.unlabelled)
        if record.members or not self.folds.parts:
            return
        names = [one.name for one in record.candidates if not one.uses_pool]
        schedule = record.schedule
        for number, share in enumerate(schedule.shares):
            stage = f"round {number + 1} of {len(schedule.shares)}"
            joins = pool and number == schedule.pool_round
            for place, name in enumerate(names, start=1):
                which = f"{stage}: {name}, {place} of {len(names) + joins}"
                self._attempt(record.candidate(name), share, which)
            if joins and (best := self._best_with_pool(names)):
                names.append(best.name)
                self._attempt(best, share, f"{stage}: {best.name}, the last")
            self._forget(needless(record, share, TOGETHER))
            leading = leaderboard_of(record, share)
            among = [entry.candidate for entry in leading if entry.candidate in names]
            names = among[: schedule.survivors(number, len(among))]

    def decide(self) -> None:
        """Choose the members, and the steps after segmentation."""
        every = self._split("all")
        Decision(self.settings, self.labels, self.record, self.run.folder, every).decide()

    def finish(self) -> None:
        """Train the members on all labels, and make them one run."""
        record = self.record
        parts = [self._member(number) for number in range(len(record.members))]
        self._forget(e for e in record.tried if not self._is_member(e))
        write_atomic(self.run.folder / "plan.json", parts[0].plan.to_json())
        write_json(self.run.folder / "data.json", parts[0].data)
        names = [part.folder.name for part in parts]
        seal(self.run.model, "config.json", {"kind": MEMBERS, "members": names, "tta": record.tta})
        record.write()

    def look_ahead(self) -> None:
        """Say what more labels would bring, as far as the time that is left allows."""
        record, first = self.record, self.record.members[0]
        if record.outlook or (entry := record.briefest(first["candidate"])) is None:
            return
        candidate = record.candidate(entry.candidate)

        def train(fold: int, folder: Path, split: Path) -> None:
            self._train_fold(candidate, entry.steps, fold, folder, split)

        record.outlook = str(look_ahead(record, self.labels, entry, train))
        record.write()
        say(record.outlook)

    def say_time(self) -> None:
        """Print what everything took beside what was given."""
        took, given = self.record.seconds / 60, 60 * self.record.hours
        late = ": steps took longer than when they were timed" if took > LATE * given else ""
        say(f"took {took:.1f} min of the {given:.1f} min given{late}")

    # -------------------------------------------------------------------------------------------- internal

    def _begin(self, began: float, further: int) -> Record:
        """A new record, which is written and said; so many cases of ``--with`` are learned from as well."""
        look_at_copies(self.labels.dataset, self.labels.splits)
        look_at_further(self.settings, self.labels.dataset, self.labels.splits)
        path = self.run.folder / CHOICE
        record = new_record(self.settings, self.labels, self._split("all"), path, began)
        for fold, part in enumerate(record.folds.parts):
            self.labels.write_split(self._split(fold), record.folds.rest(fold), part)
        record.write()
        pool = bool(self.settings.unlabelled)
        for line in described(record, self.labels, pool=pool, more=further, reason=False):
            say(line)
        return record

    def _digests(self, further: Sequence[Dataset]) -> dict[str, dict[str, str]]:
        """Digests of all cases whose content counts; of the pool, whose content stands in every run, the names.

        ``further``: the cases of ``--with``.
        """
        groups = {"cases": digests_of_files(self.labels.dataset, set(self.labels.names))}
        for number, more in enumerate(further):
            groups[f"with {number}"] = digests_of_files(more, {case.name for case in more})
        pools = read_pools(self.settings, self.labels.dataset, self.labels.splits)
        for number, pool in enumerate(pools):
            groups[f"unlabelled {number}"] = dict.fromkeys((case.name for case in pool), "")
        return groups

    def _split(self, fold: int | str) -> Path:
        return self.run.folder.resolve() / "folds" / f"split-{fold}.json"

    def _settings(self, candidate: Candidate, steps: int, folder: Path, split: Path) -> Fit:
        settings = candidate.settings
        training = replace(settings.training, steps=steps)
        machine = replace(settings.machine, workers=self.settings.machine.workers)
        return replace(
            settings,
            out=str(folder),
            split=Split(file=str(split)),
            training=training,
            machine=machine,
            reader=self.settings.reader,
        )

    def _with_steps(self, settings: Fit, plan: Plan, steps: tuple[str, ...]) -> tuple[Fit, Plan]:
        """Settings and plan with these steps on predicted masks, or with those that the user gave."""
        if self.settings.plan.postprocess is not None:
            return settings, plan
        given = replace(settings.plan, postprocess=steps or ("none",))
        reasons = dict(plan.reasons)
        if steps != plan.postprocess:  # which says why the plan had others
            reasons.pop("postprocess", None)
        return replace(settings, plan=given), replace(plan, postprocess=steps, reasons=reasons)

    def _attempt(self, candidate: Candidate, share: float, stage: str) -> None:
        """Train a candidate on every fold and score it, where the time allows; ``stage`` says which it is.

        What speaks against this candidate passes it over; what would stop the others too, such as a bad scan or a full
        disk, ends the command, which goes on from here when it is repeated.
        """
        record, steps = self.record, candidate.steps(share)
        passed_over = f"{candidate.name} {steps}" in record.passed_over
        if record.entry(candidate.name, steps) or passed_over:
            return
        folders = self.record.folders(candidate.name, steps)
        each = seconds_of_fold(record.tried, candidate, steps, len(folders))
        taken: list[float] = []
        for fold, folder in enumerate(folders):
            to_do = sum(not (path / SCORED).is_file() for path in folders[fold:])
            if to_do and (to_do + 1) * each > record.left:
                left = f"{max(record.left, 0) / 60:.1f} are left"
                why = f"no time: a training takes {each / 60:.1f} min, {left}"
                self._pass_over(candidate.name, steps, why)
                return
            if not (folder / SCORED).is_file():
                begun = time.monotonic()
                say(f"{stage}, fold {fold + 1} of {len(folders)}, {duration(record.left)} left")
                try:
                    split = self._split(fold)
                    learning = self._train_fold(candidate, steps, fold, folder, split)
                except OF_ONE_NETWORK as error:
                    record.failed.append(candidate.name)
                    self._pass_over(candidate.name, steps, str(error))
                    return
                # The first prepares arrays, such as those of the pool, that the others find.
                taken.append(time.monotonic() - begun if taken else learning)
                counted = taken[1:] or taken
                each = sum(counted) / len(counted)
        table = by_case(read_folds(folders))
        dice, surface = (float(table[name].mean()) for name in ("dice", "nsd"))
        entry = Entry(candidate.name, steps, dice, surface, round(each * len(folders), 1))
        record.tried.append(entry)
        record.write()
        say(f"  {entry}")

    def _best_with_pool(self, names: Sequence[str]) -> Candidate | None:
        """The one with the pool of what leads among these names and can learn from it; None: nothing does."""
        record = self.record
        if known := next((one for one in record.candidates if one.uses_pool), None):
            return known
        leading = (
            record.candidate(e.candidate) for e in leaderboard_of(record) if e.candidate in names
        )
        if (best := next((one for one in leading if one.can_use_pool), None)) is None:
            return None
        found = record.add_with_pool(best, self.settings)
        record.write()
        return found

    def _member(self, number: int) -> Run:
        """The run of a member, trained on all labels unless it was."""
        record, member = self.record, self.record.members[number]
        candidate, run = record.on_all_labels(member["candidate"]), self._run_of(member)
        if run.ended:
            return run
        if number and not (run.folder / "config.yaml").is_file():
            self._keep_to_time(number)
        full, steps = candidate.steps(), member["steps"]
        fewer = f" of the {full:,} planned, as time allows" if steps < full else ""
        which = f"training {number + 1} of {len(record.members)} on all labels"
        left = duration(max(record.left, 0))
        say(f"{which}: {candidate.name}, {steps:,} steps{fewer}; {left} left")
        settings = self._settings(candidate, steps, run.folder, self._split("all"))
        seed = settings.training.seed + member["seed"]
        settings = replace(settings, training=replace(settings.training, seed=seed))
        self.train(*self._with_steps(settings, candidate.plan, tuple(record.postprocess)), True)
        record.write()
        return run

    def _run_of(self, member: Member) -> Run:
        """The run of a training on all labels."""
        again = f"-{member['seed'] + 1}" if member["seed"] else ""
        return Run(self.run.folder / MEMBERS / f"{member['candidate']}{again}")

    def _keep_to_time(self, number: int) -> None:
        """Give a training as many steps as time allows at the pace of those before it; they are recorded."""
        record, members = self.record, self.record.members
        ones = [record.on_all_labels(member["candidate"]) for member in members]
        if (
            self.settings.hours is None
            or not all(one.seconds for one in ones)
            or ones[number].steps_given
        ):
            return
        took = sum(seconds_of(self._run_of(member)) for member in members[:number])
        left = AT_WORK * (record.left - record.ahead(members[0]["candidate"]))
        steps = paced(members, number, [*map(planned_seconds, ones)], took, left)
        steps, decided = min(steps, ones[number].steps()), members[number]["steps"]
        if took and steps != decided:
            members[number]["steps"] = steps
            record.write()
            say(
                f"{steps:,} steps instead of {decided:,}, by the time that is left and the pace so far"
            )

    def _pass_over(self, name: str, steps: int, why: str) -> None:
        self.record.passed_over[f"{name} {steps}"] = why
        self.record.write()
        self._remove_weights(name, steps)
        say(f"  {name} {steps} steps: {why}")

    def _train_fold(
        self, candidate: Candidate, steps: int, fold: int, folder: Path, split: Path
    ) -> float:
        """Train and score; returns the seconds of that, without those of preparing."""
        settings = self._settings(candidate, steps, folder, split)
        training = replace(settings.training, wandb=None, mlflow=None, keep_state=False)
        settings = replace(settings, training=training)
        # What comes after segmentation is decided on plain masks.
        run = self.train(*self._with_steps(settings, candidate.plan, ()), False)
        begun = time.monotonic()
        try:
            score_cases(
                Predictor.open([run], settings.machine),
                self.labels.dataset,
                self.folds.parts[fold],
                folder / SCORED.parent,
                skip_bad=settings.reader.skip_bad,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problem = f"a left-out case does not fit into memory ({first_line(error)})"
            raise OutOfMemory(folder, problem, "Lower --size") from None
        return seconds_of(run) + time.monotonic() - begun

    def _forget(self, entries: Iterable[Entry]) -> None:
        """Remove the weights of what is not needed any more; log and scores stay."""
        for entry in entries:
            self._remove_weights(entry.candidate, entry.steps)

    def _remove_weights(self, name: str, steps: int) -> None:
        for folder in self.record.folders(name, steps):
            shutil.rmtree(folder / "model", ignore_errors=True)

    def _is_member(self, entry: Entry) -> bool:
        tried = {(member["candidate"], member["tried"]) for member in self.record.members}
        return (entry.candidate, entry.steps) in tried
