"""What is trained on all labels, decided by the scores of the folds: who votes, how it looks, and what comes after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..config import Fit
from ..data.plan import Plan
from ..data.scan import times
from ..data.steps import steps_in_words
from ..evaluation.tables import in_no_mask, never_predicted
from ..inference.expecting import new_scans_in_words
from ..system.saying import say
from ..train.planning.configuration import AT_WORK
from .candidates import Candidate, planned_finer
from .halving import Entry
from .labels import Labels, by_split
from .record import Record
from .refine import refine
from .schedule import spares_structures
from .scores import OutOfFold, by_case, leaderboard_of, read_folds
from .trainings import (
    Member,
    finer_in_words,
    longer_in_words,
    pool_in_words,
    trainings_of_tried,
    trainings_of_untried,
    trainings_on_two_grids,
)
from .vote import TOGETHER, Vote, choose_members

MIRRORED = ("mirror",)
UNKNOWN = (
    "the Dice to expect of new scans is not known, since no labelled case was held back to measure it: "
    "give more --hours, labels of more patients, or a --split.test"
)


@dataclass(frozen=True)
class Decision:
    """What follows from the rounds; it is written to the record.

    Attributes:
        settings: Of the command.
        labels: The labelled cases.
        record: What was tried.
        folder: Of the run.
        every: The splits file by which all labels are learned from.
    """

    settings: Fit
    labels: Labels
    record: Record
    folder: Path
    every: Path

    def decide(self) -> None:
        """Choose the members, and the steps after segmentation."""
        record = self.record
        if record.members:
            return
        if best := leaderboard_of(record):
            self._by_scores(best)
        else:
            self._by_order()
        record.write()
        for sentence in record.decisions:
            say(sentence)

    # -------------------------------------------------------------------------------------------- internal

    def _by_scores(self, best: Sequence[Entry]) -> None:
        """Decide by what was tried, the best first."""
        record = self.record
        vote = choose_members(record, best, lambda members: self._table(self._out_of_fold(members)))
        record.ensembles += [ensemble.row for ensemble in vote.tried]
        found, viewed = self._with_views(vote)
        record.tta = [*found.tta]
        record.decisions += vote.why + viewed
        if self.settings.plan.postprocess is None:
            plan = record.candidate(vote.members[0].candidate).plan
            record.postprocess, steps = self._refine(found, plan)
            record.decisions += steps
        record.decisions += self._score(found)
        record.finer, record.members, trained = self._trainings(vote.members)
        record.decisions += trained

    def _by_order(self) -> None:
        """Take the first candidate that did not fail, since nothing was tried to its end."""
        record = self.record
        first = record.to_begin_with
        plan = first.plan
        with_pool = self.settings.unlabelled and first.can_use_pool
        twin = record.add_with_pool(first, self.settings) if with_pool else None
        left, pooled = AT_WORK * record.left, record.schedule.pooled
        found = None
        if twin and record.finer:
            labels = len(self.labels.names)
            found = trainings_on_two_grids(first, record.finer[0], twin, left, labels)
        if found is None:
            record.finer = []
            found = trainings_of_untried(first, left, TOGETHER, twin, pooled=pooled)
        record.members = found
        record.postprocess = [*plan.postprocess]
        record.decisions.append(self._why_untried(first))
        if not self.labels.splits.test:
            record.decisions.append(UNKNOWN)
        named = steps_in_words(plan.postprocess, plan.classes, plan.spatial_dims)
        if named != "none":
            because = plan.reasons.get("postprocess")
            record.decisions.append(f"after segmentation, {named} ({because})")

    def _why_untried(self, first: Candidate) -> str:
        """Why nothing was tried, and what is trained then."""
        record = self.record
        why = "no candidate could be tried on all folds in the time"
        if not record.folds.parts:
            why = self.labels.why_untried
        if self.settings.unlabelled:
            several = spares_structures(record.schedule, first, len(self.labels.names))
            used = {record.candidate(member["candidate"]).uses_pool for member in record.members}
            able = first.can_use_pool
            why += f"; {pool_in_words(False in used, True in used, able=able, several=several)}"
            why += "".join(f", {finer_in_words(one)}" for one in record.finer)
        which = "" if first is record.candidates[0] else " that did not fail"
        return f"chosen: {first.name}, the first of the candidates{which}: {why}"

    def _out_of_fold(self, members: Sequence[Entry], tta: Sequence[str] = ()) -> OutOfFold:
        return OutOfFold.of(self.record, members, self.settings.machine, tta)

    def _table(self, found: OutOfFold) -> pd.DataFrame:
        """Scores of the cases that were left out, see ``by_case``."""
        skip_bad = self.settings.reader.skip_bad
        return by_case(found.score(self.labels.dataset, skip_bad=skip_bad).table)

    def _with_views(self, vote: Vote) -> tuple[OutOfFold, list[str]]:
        """What segments, by mirrored views too where cases that were left out gain by it; and what is said of it."""
        plain = self._out_of_fold(vote.members)
        if not all(self.record.candidate(one.candidate).plan.mirror for one in vote.members):
            return plain, []
        mirrored = self._out_of_fold(vote.members, MIRRORED)
        gain = float(self._table(mirrored)["dice"].mean() - vote.table["dice"].mean())
        verb = "averaged" if gain > 0 else "not averaged"
        said = [f"mirrored views are {verb} at prediction: Dice {gain:+.3f}"]
        return mirrored if gain > 0 else plain, said

    def _refine(self, found: OutOfFold, plan: Plan) -> tuple[list[str], list[str]]:
        """Steps after segmentation, and what is said of them."""
        scored = {name for runs in found.runs for name in read_folds([runs[0].folder])["case"]}
        cases = [case for case in self.labels.cases if case.name in scored]
        steps, why = refine(found, cases, plan)
        return steps, [f"after segmentation, {sentence}" for sentence in why]

    def _score(self, found: OutOfFold) -> list[str]:
        """Score every case as the members segment it that did not see it, with what comes after; and say it."""
        steps, skip_bad = self.record.postprocess, self.settings.reader.skip_bad
        scored = found.score(self.labels.dataset, steps, skip_bad=skip_bad)
        scored.write(self.folder / "validation")
        lost = in_no_mask(never_predicted(scored.table), scored.table["case"].nunique())
        return [*filter(None, (new_scans_in_words(scored.table), lost))]

    def _trainings(
        self, chosen: Sequence[Entry]
    ) -> tuple[list[Candidate], list[Member], list[str]]:
        """The candidates on a finer grid, the trainings on all labels as time allows, and what is said of them."""
        record = self.record
        ahead = AT_WORK * record.ahead(chosen[0].candidate)
        if found := self._finer(chosen, AT_WORK * record.left - ahead):
            finer, members = found
            grids = " and ".join(dict.fromkeys(times(one.plan.film) for one in finer))
            why = (
                f"trained on all labels at {grids}, as there is time for a finer grid than in the folds, "
                "where every Dice above was measured"
            )
            if len(finer) < len(members):
                why += "; that with the pool stays on theirs, which on average suited another hospital's films better"
            return finer, members, [why]
        full = [record.candidate(entry.candidate).steps() for entry in chosen]
        each = [record.seconds_of_step(entry) for entry in chosen]
        members = trainings_of_tried(chosen, full, each, AT_WORK * record.left, TOGETHER, ahead)
        count = len(members) // len(chosen)
        seeds = [f"trained {count} times, by different seeds"] * (count > 1)
        return [], members, [*longer_in_words(members), *seeds]

    def _finer(
        self, chosen: Sequence[Entry], seconds: float
    ) -> tuple[list[Candidate], list[Member]] | None:
        """What is planned anew for the seconds that there are, on a finer grid of films, and all trainings.

        What learns from the pool stays on the grid of the folds, for as long as it was planned: a step takes a quarter
        of the time there, and on average it suits another hospital better (``results/lungs-children-grids.csv``). The
        rest gets the time that remains, and comes first. That the scores are of a coarser grid is accepted: on a finer
        one lungs had better borders in each draw (``results/lungs-coarse.csv``) [ours].

        Returns:
            None unless something is planned anew, and all of that gets a finer grid.
        """
        record = self.record
        tried = {entry: record.candidate(entry.candidate) for entry in chosen}
        plain = {entry: one for entry, one in tried.items() if not one.uses_pool}
        if not plain or not all(one.is_timed for one in tried.values()):
            return None
        steps = {
            entry: max(
                entry.steps,
                min(one.steps(), int(seconds / len(chosen) / record.seconds_of_step(entry))),
            )
            for entry, one in tried.items()
            if one.uses_pool
        }
        seconds -= sum(record.seconds_of_step(entry) * count for entry, count in steps.items())
        if seconds <= 0:
            return None
        # As much slower as the steps of the folds were than planned.
        slower = max(
            record.seconds_of_step(entry) * one.steps() / one.seconds
            for entry, one in plain.items()
        )
        hours = seconds / len(plain) / max(slower, 1.0) / 3600 / AT_WORK
        given, dataset = by_split(self.settings, self.every), self.labels.dataset
        planned = planned_finer([*plain.values()], given, dataset, hours, {})
        if planned is None:
            return None
        finer = dict(zip(plain, planned, strict=True))
        steps |= {entry: one.steps() for entry, one in finer.items()}
        members: list[Member] = [
            {"candidate": e.candidate, "steps": steps[e], "seed": 0, "tried": e.steps}
            for e in (*finer, *(entry for entry in chosen if entry not in finer))
        ]
        return planned, members
