"""The runs behind a study: each is trained once, and opened where it is already there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Set
from dataclasses import replace
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


class StudyRuns:
    """Trains what a study needs, by the commands ``pretrain`` and ``fit``.

    Args:
        settings: The study.
        held: Patients whose images are not trained on, nor images that descend from them.
        pretrain: Trains what methods start from.
        fit: Trains what segments.
    """

    def __init__(
        self,
        settings: Study,
        held: Set[str],
        pretrain: Callable[[Pretrain], Run],
        fit: Callable[[Fit], Run],
    ) -> None:
        self.settings, self.held, self.out = settings, held, Path(settings.out)
        self.pretrain, self.fit = pretrain, fit
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
        if kind := variant.row.pseudo_labels:
            pairs = str(self._pseudo_labels(kind, labels, draw))
            if kind == "drawn":
                whole = Split(test=0.0, validation=0.0)
                settings = replace(settings, data=pairs, labels=None, draw=0, split=whole)
            else:
                settings = replace(settings, with_run=(pairs,))
        return self.fit(settings)

    # -------------------------------------------------------------------------------------------- internal

    def _fit(self, variant: Variant, folder: Path, labels: int, draw: int) -> Fit:
        """Settings with which a variant is trained."""
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
            # A network from scratch has the plan and the architecture of the pre-trained one.
            network = from_dict(Network, shared.config["settings"]["network"])
            changes |= {"plan": plan_settings(shared.plan), "network": network}
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
        return self.pretrain(replace(base, data=given.unlabelled, out=str(folder), **changes))

    def _pseudo_labels(self, kind: str, labels: int, draw: int) -> Path:
        """Images of the denoiser, or the synthetic ones but for descendants of held-out patients, labelled."""
        given, reader = self.settings, self.settings.finetune.reader
        machine = given.finetune.machine
        segmenter = self.run(trained_alike("finetune", given), labels, draw)
        out = self.out / "pseudo-labels" / f"{kind}-{labels}-{draw}"
        if kind == "drawn":
            denoiser, count = self.start(DENOISER), given.pseudo_labels
            return label_drawn(denoiser, segmenter, out, count=count, seed=draw, machine=machine)
        images = with_more(read_dataset(given.synthetic[0], reader), given.synthetic[1:], reader)
        images = images.filter(lambda case: not descends(case, self.held))
        return label_images(images, segmenter, out, reader=reader, machine=machine)


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
