"""The method auto from start to end: folds, candidates, rounds, the choice, and the training on all labels."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Fit, Split
from ..config.segmenting import POOLED
from ..data.plan import Plan
from ..errors import InputError, TrainingDiverged
from ..evaluation.statistics import clustered_difference, clustered_mean
from ..inference.expecting import of_new_scans
from ..inference.predictor import Predictor
from ..inference.scoring import score_cases
from ..system.distributed import launched
from ..system.files import seal, write_atomic, write_json
from ..system.saying import say
from ..train.cases import open_more
from ..train.choices import AT_WORK
from ..train.members import MEMBERS
from ..train.pool import read_pools
from ..train.progress import duration
from ..train.run import CHOICE, Run, start_run
from ..train.unchanged import digests_of_files, require_same_cases, require_same_splits
from .candidates import POOL, Candidate, full_steps
from .halving import Entry, ranked, seconds_of_fold, survivors, trainings, untried
from .labels import described, open_record, read_labels
from .outlook import look_ahead
from .record import Record
from .refine import refine
from .scores import SCORED, OutOfFold, by_case, read_folds

Train = Callable[[Fit, Plan, bool], Run]
"""Trains a run by a method of ``fit`` and a plan, with its report or without."""
TOGETHER = 3
"""Most candidates of an ensemble; the fold runs of as many are kept until it is decided."""
LEAST_PATIENTS = 4
"""Patients on whom an ensemble has to gain: fewer gains of one sign are too easily chance."""
MIRRORED = ("mirror",)
LEAST_GAIN = 0.002
"""Mean Dice that an ensemble has to gain, since every member costs its time at each prediction [ours]."""


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
    with start_run(settings.out, "fit", settings) as run, _cleared(run):
        if run.ended:
            say(f"{run.folder} is finished, nothing is left to train")
        choice = _Choice(settings, run, train, began)
        choice.rounds()
        choice.decide()
        choice.finish()
        choice.look_ahead()
        leave(run.folder)
        choice.say_time()
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


class _Choice:
    """What is tried and decided in a run folder; everything that was is read from its record."""

    def __init__(self, settings: Fit, run: Run, train: Train, began: float) -> None:
        self.settings, self.run, self.train = settings, run, train
        self.labels = labels = read_labels(settings, write=True)
        trained = run.trained
        require_same_splits(run.folder, labels.splits, trained=trained)
        require_same_cases(run.folder, self._digests(), trained=trained)
        self.record = Record.read(run.folder, began) or self._begin(began)
        self.folds = self.record.folds

    def rounds(self) -> None:
        """Try the candidates, the better ones for longer."""
        record, pool = self.record, bool(self.settings.unlabelled)
        if record.members or not self.folds.parts:
            return
        reference = record.candidates[0].name if self.settings.from_run else ""
        names = [one.name for one in record.candidates if not one.name.endswith(POOL)]
        shares, least = record.schedule.shares, record.schedule.kept
        for number, share in enumerate(shares):
            if number == min(1, len(shares) - 1) and pool:
                able = [n for n in names if record.candidate(n).settings.method in POOLED]
                names += map(self._with_pool, able)
            for place, name in enumerate(names, start=1):
                stage = f"round {number + 1} of {len(shares)}: {name}, {place} of {len(names)}"
                self._attempt(record.candidate(name), share, stage)
            tried = [entry for entry in record.tried if entry.candidate in names]
            first = number == 0
            names = survivors(tried, reference if first else "", least=least if first else 1)
            self._forget(ranked(record.tried)[:TOGETHER])

    def decide(self) -> None:
        """Choose the members, and the steps after segmentation."""
        record = self.record
        if record.members:
            return
        best = ranked(record.tried)
        members, why = self._best_members(best) if best else ([], [])
        if not best:
            why = [self._untried()]
        record.decisions += why
        if members:
            found = self._view(members)
            if self.settings.plan.postprocess is None:
                self._refine(found)
            self._score(found)
            self._lengthen(members)
        else:
            first = record.candidates[0]
            full, left = first.settings.training.length, AT_WORK * record.left
            record.members = untried(first.name, full, first.seconds, left, TOGETHER)
        record.write()
        for sentence in record.decisions:
            say(sentence)

    def finish(self) -> None:
        """Train the members on all labels, and make them one run."""
        record, steps = self.record, tuple(self.record.postprocess)
        parts = []
        for number, member in enumerate(record.members, start=1):
            candidate = record.candidate(member["candidate"])
            again = f"-{member['seed'] + 1}" if member["seed"] else ""
            folder = self.run.folder / MEMBERS / f"{candidate.name}{again}"
            parts.append(Run(folder))
            if not parts[-1].ended:
                which = f"training {number} of {len(record.members)} on all labels"
                say(f"{which}: {candidate.name}, {duration(max(record.left, 0))} left")
                settings = self._settings(candidate, member["steps"], folder, self._split("all"))
                seed = settings.training.seed + member["seed"]
                settings = replace(settings, training=replace(settings.training, seed=seed))
                plan = replace(candidate.plan, postprocess=steps or candidate.plan.postprocess)
                given = replace(settings.plan, postprocess=plan.postprocess or None)
                self.train(replace(settings, plan=given), plan, True)
                record.write()
        self._forget([e for e in record.tried if self._is_member(e)])
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
        say(f"took {took:.1f} min of the {given:.1f} min given")

    # -------------------------------------------------------------------------------------------- internal

    def _begin(self, began: float) -> Record:
        path = self.run.folder / CHOICE
        record = open_record(self.settings, self.labels, self._split("all"), path, began)
        for fold, part in enumerate(record.folds.parts):
            self.labels.write_split(self._split(fold), record.folds.rest(fold), part)
        record.write()
        for line in described(record, self.labels, pool=bool(self.settings.unlabelled)):
            say(line)
        return record

    def _digests(self) -> dict[str, dict[str, str]]:
        """Digests of all cases whose content counts; of the pool, whose content stands in every run, the names."""
        groups = {"cases": digests_of_files(self.labels.dataset, set(self.labels.names))}
        for number, folder in enumerate(self.settings.with_run):
            more = open_more(folder, self.settings.reader)
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

    def _with_pool(self, name: str) -> str:
        with_pool = self.record.candidate(name).with_pool(self.settings)
        if with_pool.name not in {one.name for one in self.record.candidates}:
            self.record.candidates.append(with_pool)
        return with_pool.name

    def _attempt(self, candidate: Candidate, share: float, stage: str) -> None:
        """Train a candidate on every fold and score it, where the time allows; ``stage`` says which it is."""
        record, steps = self.record, full_steps(candidate, share)
        key = f"{candidate.name} {steps}"
        if record.entry(candidate.name, steps) or key in record.passed_over:
            return
        folders = self.record.folders(candidate.name, steps)
        predicted = candidate.seconds * steps / candidate.settings.training.length
        each = seconds_of_fold(record.tried, candidate.name, steps, len(folders), predicted)
        taken: list[float] = []
        for fold, folder in enumerate(folders):
            to_do = sum(not (path / SCORED).is_file() for path in folders[fold:])
            if (to_do + 1) * each > record.left:
                left = f"{max(record.left, 0) / 60:.1f} are left"
                self._pass_over(key, f"no time: a training takes {each / 60:.1f} min, {left}")
                return
            if not (folder / SCORED).is_file():
                begun = time.monotonic()
                say(f"{stage}, fold {fold + 1} of {len(folders)}, {duration(record.left)} left")
                try:
                    split = self._split(fold)
                    learning = self._train_fold(candidate, steps, fold, folder, split)
                except TrainingDiverged as error:
                    self._pass_over(key, str(error))
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

    def _pass_over(self, key: str, why: str) -> None:
        self.record.passed_over[key] = why
        self.record.write()
        say(f"  {key} steps: {why}")

    def _train_fold(
        self, candidate: Candidate, steps: int, fold: int, folder: Path, split: Path
    ) -> float:
        """Train and score; returns the seconds of that, without those of preparing."""
        settings = self._settings(candidate, steps, folder, split)
        training = replace(settings.training, wandb=None, mlflow=None, keep_state=False)
        run = self.train(replace(settings, training=training), candidate.plan, False)
        trained = max((float(row.get("seconds", 0)) for row in run.log()), default=0.0)
        begun = time.monotonic()
        score_cases(
            Predictor.open([run], settings.machine),
            self.labels.dataset,
            self.folds.parts[fold],
            folder / SCORED.parent,
            skip_bad=settings.reader.skip_bad,
        )
        return trained + time.monotonic() - begun

    def _forget(self, kept: Sequence[Entry]) -> None:
        """Remove the weights of what was scored and is not needed any more; log and scores stay."""
        for entry in self.record.tried:
            if entry not in kept:
                for folder in self.record.folders(entry.candidate, entry.steps):
                    shutil.rmtree(folder / "model", ignore_errors=True)

    def _out_of_fold(self, members: Sequence[Entry], tta: Sequence[str] = ()) -> OutOfFold:
        names = [(entry.candidate, entry.steps) for entry in members]
        return OutOfFold.of(self.record, names, self.settings.machine, tta)

    def _best_members(self, best: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
        """The best candidate, or several together where that gains more than noise; and sentences that say so."""
        record = self.record
        alone = by_case(read_folds(record.folders(best[0].candidate, best[0].steps)))
        mean = clustered_mean(alone["dice"], group=list(alone["group"]))
        why = [
            f"chosen: {best[0].candidate} with {best[0].steps} steps, Dice {mean.mean:.3f} "
            f"({mean.low:.3f} to {mean.high:.3f}), surface Dice {best[0].surface:.3f} "
            f"on {len(alone)} cases that it did not see"
        ]
        if len(best) > 1:
            why.append(f"next: {best[1]}")
        chosen, gained = [best[0]], 0.0
        for size in range(2, min(TOGETHER, len(best)) + 1):
            members = list(best[:size])
            if record.left < sum(e.seconds for e in members) / len(self.folds.parts):
                break
            scored = self._out_of_fold(members).score(
                self.labels.dataset, skip_bad=self.settings.reader.skip_bad
            )
            table = by_case(scored.table)
            paired = clustered_difference(table["dice"], alone["dice"], group=list(alone["group"]))
            names = [e.candidate for e in members]
            row: dict[str, Any] = {"members": names, "dice": float(table["dice"].mean())}
            row |= {"nsd": float(table["nsd"].mean()), "gain": paired.difference}
            record.ensembles.append(row | {"low": paired.low, "high": paired.high})
            why.append(
                f"together: {' and '.join(names)}, Dice {row['dice']:.3f}, "
                f"gain {paired.difference:+.3f} ({paired.low:+.3f} to {paired.high:+.3f})"
            )
            sure = paired.low > 0 and paired.n >= LEAST_PATIENTS
            if sure and paired.difference > max(gained, LEAST_GAIN):
                chosen, gained = members, paired.difference
        if len(chosen) > 1:
            why.append(f"{len(chosen)} of them vote together")
        elif record.ensembles:
            why.append("one alone, since together they gain no more than noise")
        return chosen, why

    def _view(self, members: Sequence[Entry]) -> OutOfFold:
        """Average mirrored views at prediction where cases that were left out gain by it; returns what segments."""
        record, plain = self.record, self._out_of_fold(members)
        if not all(record.candidate(member.candidate).plan.mirror for member in members):
            return plain
        mirrored, names = self._out_of_fold(members, MIRRORED), [m.candidate for m in members]
        scored = mirrored.score(self.labels.dataset, skip_bad=self.settings.reader.skip_bad)
        together = (row["dice"] for row in record.ensembles if row["members"] == names)
        gain = float(by_case(scored.table)["dice"].mean()) - next(together, members[0].dice)
        verb = "averaged" if gain > 0 else "not averaged"
        record.decisions.append(f"mirrored views are {verb} at prediction: Dice {gain:+.3f}")
        if gain <= 0:
            return plain
        record.tta = list(MIRRORED)
        return mirrored

    def _lengthen(self, members: Sequence[Entry]) -> None:
        """The trainings on all labels: in full length, and with further seeds, as far as the time allows."""
        record = self.record
        full = [full_steps(record.candidate(entry.candidate), 1.0) for entry in members]
        each = [entry.seconds / len(self.folds.parts) / entry.steps for entry in members]
        brief = record.briefest(members[0].candidate)
        ahead = brief.seconds if brief else 0.0
        record.members = trainings(members, full, each, AT_WORK * (record.left - ahead), TOGETHER)
        if (times := len(record.members) // len(members)) > 1:
            record.decisions.append(f"trained {times} times, by different seeds")

    def _refine(self, found: OutOfFold) -> None:
        scored = {name for runs in found.runs for name in read_folds([runs[0].folder])["case"]}
        cases = [case for case in self.labels.cases if case.name in scored]
        classes = found.predictor(cases[0]).plan.classes
        self.record.postprocess, why = refine(found, cases, classes)
        self.record.decisions += [f"after segmentation, {sentence}" for sentence in why]

    def _score(self, found: OutOfFold) -> None:
        """Score every case as the members segment it that did not see it, with what comes after."""
        steps, skip_bad = self.record.postprocess, self.settings.reader.skip_bad
        scored = found.score(self.labels.dataset, steps, skip_bad=skip_bad)
        scored.write(self.run.folder / "validation")
        if sentence := of_new_scans(scored.table):
            self.record.decisions.append(sentence)

    def _is_member(self, entry: Entry) -> bool:
        tried = {(member["candidate"], member["tried"]) for member in self.record.members}
        return (entry.candidate, entry.steps) in tried

    def _untried(self) -> str:
        """Why nothing was tried, and what is trained then."""
        first, pool = self.record.candidates[0], ""
        why = "no candidate could be tried on all folds in the time"
        if not self.folds.parts:
            why = self.labels.untried
        if self.settings.unlabelled:
            pool = "; the pool is left out, since whether it helps was not tried"
        return f"chosen: {first.name}, the first of the candidates: {why}{pool}"
