"""What is trained on all labels, decided by the scores of the folds: who votes, how it looks, and what comes after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Fit
from ..data.plan import Plan
from ..data.scan import times
from ..data.steps import steps_in_words
from ..errors import InputError
from ..evaluation.statistics import PairedTest, clustered_difference, clustered_mean
from ..evaluation.tables import in_no_mask, never_predicted
from ..inference.expecting import new_scans_in_words
from ..system.saying import say
from ..train.planning.configuration import AT_WORK
from .candidates import Candidate, planned_for
from .halving import Entry, pool_in_words, ranked, trainings, untried
from .labels import Labels, by_split
from .record import Record
from .refine import refine
from .schedule import ENOUGH, POOL_COST, spares_structures
from .scores import OutOfFold, by_case, gain_over, is_sure, lead, read_folds

TOGETHER = 3
"""Most candidates of an ensemble; the fold runs of as many are kept until it is decided."""
MIRRORED = ("mirror",)
UNKNOWN = (
    "the Dice to expect of new scans is not known, since no labelled case was held back to measure it: "
    "give more --hours, labels of more patients, or a --split.test"
)
LEAST_GAIN = 0.002
"""Mean Dice that an ensemble has to gain, since every member costs its time at each prediction [ours]."""


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
        best = lead(record)
        members, why = self._best_members(best) if best else ([], [])
        if members:
            record.decisions += why
            found = self._view(members)
            if self.settings.plan.postprocess is None:
                self._refine(found, record.candidate(members[0].candidate).plan)
            self._score(found)
            self._lengthen(members)
        else:
            first = record.candidates[0]
            with_pool = self.settings.unlabelled and first.can_use_pool
            twin = record.add_with_pool(first, self.settings) if with_pool else None
            left, pooled = AT_WORK * record.left, record.schedule.pooled
            record.members = untried(first, left, TOGETHER, twin, pooled=pooled)
            record.postprocess = [*first.plan.postprocess]
            named = steps_in_words(
                first.plan.postprocess, first.plan.classes, first.plan.spatial_dims
            )
            because = first.plan.reasons.get("postprocess")
            after = [f"after segmentation, {named} ({because})"] if named != "none" else []
            why = [self._untried([record.candidate(m["candidate"]) for m in record.members])]
            if not self.labels.splits.test:
                why.append(UNKNOWN)
            record.decisions += why + after
        record.write()
        for sentence in record.decisions:
            say(sentence)

    # -------------------------------------------------------------------------------------------- internal

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
        highest = ranked(best)[0]
        if highest != best[0]:
            more = gain_over(record, highest, best[0])
            why.append(
                f"{highest.candidate} scored {highest.dice:.3f}, which does not show that it is better: "
                f"{more.difference:+.3f} ({more.low:+.3f} to {more.high:+.3f})"
            )
        elif len(best) > 1:
            why.append(f"second best: {best[1]}")
        chosen, kept = [best[0]], alone
        if twin := self._twin(best):
            chosen.append(twin)
            why.append("both vote, since the folds do not decide whether the pool helps")
            kept = self._together(chosen, alone, why)[1]
        chosen, said = self._vote(best, chosen, kept)
        return chosen, why + said

    def _vote(
        self, best: Sequence[Entry], chosen: list[Entry], kept: Any
    ) -> tuple[list[Entry], list[str]]:
        """The first candidates where together they gain more than noise over what is chosen, and sentences that say so.

        Borders may not suffer: on lungs with five labels a probe of frozen features gave Dice and took surface Dice.

        Args:
            best: What was tried, the best first.
            chosen: One, or the same with the pool and without it.
            kept: Scores of the latter, by case.
        """
        record, more, gained = self.record, chosen, 0.0
        why = list[str]()
        for size in range(2, min(TOGETHER, len(best)) + 1):
            members = list(best[:size])
            if record.left < sum(e.seconds for e in members) / len(record.folds.parts):
                break
            if members == chosen:
                continue
            paired, table = self._together(members, kept, why)
            if is_sure(paired) and paired.difference > max(gained, LEAST_GAIN):
                lost = float(kept["nsd"].mean() - table["nsd"].mean())
                if lost > 0:
                    why.append(f"they do not vote, since their surface Dice is lower by {lost:.3f}")
                else:
                    more, gained = members, paired.difference
        if more != chosen:
            why.append(f"{len(more)} of them vote together")
        elif why and len(chosen) == 1:
            why.append("one alone, since together they gain no more than noise")
        return more, why

    def _together(
        self, members: Sequence[Entry], than: Any, why: list[str]
    ) -> tuple[PairedTest, Any]:
        """What several gain over what has these scores, and their own by case; it is put on record, and said."""
        scored = self._out_of_fold(members).score(
            self.labels.dataset, skip_bad=self.settings.reader.skip_bad
        )
        table = by_case(scored.table)
        paired = clustered_difference(table["dice"], than["dice"], group=list(than["group"]))
        names = [e.candidate for e in members]
        row: dict[str, Any] = {"members": names, "dice": float(table["dice"].mean())}
        row |= {"nsd": float(table["nsd"].mean()), "gain": paired.difference}
        self.record.ensembles.append(row | {"low": paired.low, "high": paired.high})
        why.append(
            f"together: {' and '.join(names)}, Dice {row['dice']:.3f}, surface Dice {row['nsd']:.3f}, "
            f"gain {paired.difference:+.3f} ({paired.low:+.3f} to {paired.high:+.3f})"
        )
        return paired, table

    def _twin(self, best: Sequence[Entry]) -> Entry | None:
        """The best candidate without the pool, or with it, where the folds do not decide and there is time for both."""
        record = self.record
        first, *others = ((e, record.candidate(e.candidate).proposal) for e in best[:TOGETHER])
        twin = next((entry for entry, proposal in others if proposal == first[1]), None)
        if twin is None:
            return None
        needed = sum(self._seconds_of_step(e) * self._full(e) for e in (best[0], twin))
        decided = gain_over(record, best[0], twin).low > 0
        return None if decided or ENOUGH * needed > AT_WORK * record.left else twin

    def _seconds_of_step(self, entry: Entry) -> float:
        return entry.seconds / len(self.record.folds.parts) / entry.steps

    def _full(self, entry: Entry) -> int:
        return self.record.candidate(entry.candidate).steps()

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
        """The trainings on all labels: on a finer grid, or in full length and with further seeds, as time allows."""
        record = self.record
        brief = record.briefest(members[0].candidate)
        ahead = AT_WORK * brief.seconds if brief else 0.0
        record.finer = self._finer(members, AT_WORK * record.left - ahead)
        if record.finer:
            record.members = [
                {
                    "candidate": one.name,
                    "steps": one.steps(),
                    "seed": 0,
                    "tried": entry.steps,
                }
                for one, entry in zip(record.finer, members, strict=True)
            ]
            grids = " and ".join(dict.fromkeys(times(one.plan.film) for one in record.finer))
            record.decisions.append(
                f"trained on all labels at {grids}, as there is time for a finer grid than in the folds, "
                "where every Dice above was measured"
            )
            return
        full, each = map(self._full, members), map(self._seconds_of_step, members)
        record.members = trainings(
            members, [*full], [*each], AT_WORK * record.left, TOGETHER, ahead
        )
        if (count := len(record.members) // len(members)) > 1:
            record.decisions.append(f"trained {count} times, by different seeds")

    def _finer(self, members: Sequence[Entry], seconds: float) -> list[Candidate]:
        """The members, planned anew for the seconds that there are; [] unless all get a finer grid of films.

        That the scores are of a coarser grid is accepted: on a finer one lungs had better borders in each draw
        (``results/lungs-coarse.csv``) [ours].
        """
        tried = [self.record.candidate(entry.candidate) for entry in members]
        if seconds <= 0 or any(
            one.steps_given or not one.seconds or one.plan.spacing for one in tried
        ):
            return []
        costs = [POOL_COST if one.uses_pool else 1.0 for one in tried]
        # As much slower as the steps of the folds were than planned.
        slower = max(
            self._seconds_of_step(entry) * one.steps() / one.seconds / cost
            for entry, one, cost in zip(members, tried, costs, strict=True)
        )
        hours = seconds / sum(costs) / max(slower, 1.0) / 3600 / AT_WORK
        given, seen = by_split(self.settings, self.every), dict[Any, Any]()
        new = dict[str, Candidate]()
        for name, film in {one.proposal: one.plan.film for one in tried}.items():
            with suppress(InputError):  # such as memory that others have taken meanwhile
                new[name] = planned_for(name, given, self.labels.dataset, hours, seen)
            if name not in new or math.prod(new[name].plan.film) <= math.prod(film):
                return []
        finer = [new[one.proposal] for one in tried]
        return [
            fine.with_pool(self.settings) if one.uses_pool else fine
            for one, fine in zip(tried, finer, strict=True)
        ]

    def _refine(self, found: OutOfFold, plan: Plan) -> None:
        scored = {name for runs in found.runs for name in read_folds([runs[0].folder])["case"]}
        cases = [case for case in self.labels.cases if case.name in scored]
        steps, why = refine(found, cases, plan)
        self.record.postprocess = steps
        self.record.decisions += [f"after segmentation, {sentence}" for sentence in why]

    def _score(self, found: OutOfFold) -> None:
        """Score every case as the members segment it that did not see it, with what comes after."""
        steps, skip_bad = self.record.postprocess, self.settings.reader.skip_bad
        scored = found.score(self.labels.dataset, steps, skip_bad=skip_bad)
        scored.write(self.folder / "validation")
        lost = in_no_mask(never_predicted(scored.table), scored.table["case"].nunique())
        for sentence in (new_scans_in_words(scored.table), lost):
            if sentence:
                self.record.decisions.append(sentence)

    def _untried(self, members: Sequence[Candidate]) -> str:
        """Why nothing was tried, and what is trained then."""
        why = "no candidate could be tried on all folds in the time"
        if not self.record.folds.parts:
            why = self.labels.untried
        record = self.record
        first = record.candidates[0]
        pool = ""
        if self.settings.unlabelled:
            several = spares_structures(record.schedule, first, len(self.labels.names))
            used = {one.uses_pool for one in members}
            pool = pool_in_words(
                False in used, True in used, able=first.can_use_pool, several=several
            )
        why += f"; {pool}" if pool else ""
        return f"chosen: {first.name}, the first of the candidates: {why}"
