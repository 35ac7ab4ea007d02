"""The runs behind a study: each is trained once, and opened where it is already there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import Fit, Network, PlanSettings, Pretrain, Split, Study
from ..config.values import from_dict
from ..data.plan import Plan
from ..data.provenance import descends
from ..inference.members import Overrides
from ..inference.predictor import Predictor
from ..train.cases import read_dataset, with_more
from ..train.run import Run
from ..train.start import find_pretrained
from .methods import DENOISER, METHODS, STARTS, Variant, trained_alike
from .pseudo_labels import label_drawn, label_images


@dataclass(frozen=True)
class Acts:
    """The commands that a study runs.

    Attributes:
        pretrain: Trains what methods start from.
        fit: Trains what segments.
    """

    pretrain: Callable[[Pretrain], Run]
    fit: Callable[[Fit], Run]


class StudyRuns:
    """Trains what a study needs.

    Args:
        settings: The study.
        acts: What trains.
        held: Patients from whom nothing may be trained on.
    """

    def __init__(self, settings: Study, acts: Acts, held: Set[str]) -> None:
        self.settings = settings
        self.acts = acts
        self.out = Path(settings.out)
        self.held = held
        self.start = functools.cache(self._start)

    def shared(self) -> Run | None:
        """The run whose plan and network every method shares; None without unlabelled images."""
        rows = [METHODS[name] for name in self.settings.methods]
        first = next((row.start for row in rows if row.start), DENOISER)
        if not all(row.pretraining for row in rows if row.start):
            first = DENOISER
        known = self.settings.from_run or self.settings.unlabelled
        return self.start(first) if known else None

    def predictor(self, variant: Variant, labels: int, draw: int) -> Predictor:
        """What segments the cases."""
        members = [variant]
        if variant.row.segments == "ensemble":
            members = [trained_alike(name, self.settings) for name in self.settings.ensemble]
        runs = [self.run(member, labels, draw) for member in members]
        sampler = variant.sampler or self.settings.samplers[0]
        overrides = Overrides(sampler=sampler, head=variant.head)
        return Predictor.open(runs, self.settings.finetune.machine, overrides)

    def run(self, variant: Variant, labels: int, draw: int) -> Run:
        """The trained run of a variant with a budget of labels, in a draw."""
        folder = self.out / "runs" / f"{variant.trained}-{labels}-{draw}"
        if Run(folder).ended:
            return Run.open(folder)
        settings = self._fit(variant, folder, labels, draw)
        if variant.row.pseudo_labels == "drawn":
            pairs, whole = self._drawn(labels, draw), Split(test=0.0, validation=0.0)
            settings = replace(settings, data=str(pairs), labels=None, draw=0, split=whole)
        elif variant.row.pseudo_labels == "synthetic":
            settings = replace(settings, with_run=(str(self._synthetic(labels, draw)),))
        return self.acts.fit(settings)

    # -------------------------------------------------------------------------------------------- internal

    def _fit(self, variant: Variant, folder: Path, labels: int, draw: int) -> Fit:
        """Settings of the training of a variant."""
        given, row = self.settings, variant.row
        base = given.finetune
        changes: dict[str, Any] = {"method": row.fit}
        if variant.head:
            base = given.probing
            kinds = tuple(dict.fromkeys(t for t in given.transfer if t != "finetune"))
            changes = {"method": "probe", "probe": replace(base.probe, heads=kinds)}
            changes |= {
                name: getattr(given.finetune, name) for name in ("split", "reader", "machine")
            }
        elif row.strategy:
            base = given.diffusion
            changes |= {"diffusion": replace(base.diffusion, strategy=row.strategy)}
            changes |= {"split": given.finetune.split}
        else:
            changes |= {"finetune": replace(base.finetune, timestep=variant.timestep)}
            changes |= {"weights": variant.weights}
        if not variant.head and (shared := self.shared()):
            # A network from scratch sees and is what the pre-trained one saw and is.
            changes |= {"plan": plan_settings(shared.plan), "network": network_settings(shared)}
        if row.start:
            changes["from_run"] = str(self.start(row.start, variant.pool).folder)
        training = replace(base.training, seed=draw, validate_every=0)
        return replace(
            base,
            data=given.data,
            out=str(folder),
            labels=labels,
            draw=draw,
            training=training,
            **changes,
        )

    def _start(self, name: str, pool: int | None = None) -> Run:
        """A row of ``STARTS``; ``pool`` is the number of unlabelled images that it sees, None all."""
        row, given = STARTS[name], self.settings
        if ready := row.given(given):
            return find_pretrained(ready)
        folder = self.out / (f"{row.folder}-{pool}" if pool else row.folder)
        if Run(folder).ended:
            return Run.open(folder)
        assert given.unlabelled is not None
        changes: dict[str, Any] = {"coordinates": None}
        if row.objective:
            changes["objective"] = row.objective
        if row.group == "regressor":
            changes |= {
                name: getattr(given.pretrain, name) for name in ("plan", "reader", "machine")
            }
        if row.from_run:
            changes["from_run"] = str(self.start(row.from_run).folder)
        if row.coordinates:
            changes["coordinates"] = str(self.start(row.coordinates).folder)
        if row.synthetic:
            changes["with_run"] = given.synthetic
        if pool:
            changes["limit"] = pool
        base: Pretrain = getattr(given, row.group)
        return self.acts.pretrain(replace(base, data=given.unlabelled, out=str(folder), **changes))

    def _labeller(self, labels: int, draw: int) -> Run:
        """The fine-tuned network that labels images."""
        return self.run(trained_alike("finetune", self.settings), labels, draw)

    def _drawn(self, labels: int, draw: int) -> Path:
        """Images of the denoiser, labelled."""
        return label_drawn(
            self.start(DENOISER),
            self._labeller(labels, draw),
            self.out / "pseudo-labels" / f"drawn-{labels}-{draw}",
            count=self.settings.pseudo_labels,
            seed=draw,
            machine=self.settings.finetune.machine,
        )

    def _synthetic(self, labels: int, draw: int) -> Path:
        """The synthetic images, labelled, without descendants of held-out patients."""
        folders, reader = self.settings.synthetic, self.settings.finetune.reader
        images = with_more(read_dataset(folders[0], reader), folders[1:], reader)
        return label_images(
            images.filter(lambda case: not descends(case, self.held)),
            self._labeller(labels, draw),
            self.out / "pseudo-labels" / f"synthetic-{labels}-{draw}",
            reader=reader,
            machine=self.settings.finetune.machine,
        )


def plan_settings(plan: Plan) -> PlanSettings:
    """A plan as settings."""
    window = (plan.low, plan.high)
    return PlanSettings(
        size=plan.size,
        spacing=plan.spacing,
        resize=plan.resize,
        window=window if plan.intensity == "window" else None,
        percentiles=window if plan.intensity == "percentiles" else None,
    )


def network_settings(run: Run) -> Network:
    """The network of a run as settings."""
    network: Network = from_dict(Network, run.config["settings"]["network"])
    return network
