"""The runs behind a study: what each of its methods trains, from what, and how it then predicts.

A method is trained once for each budget and draw. Variants that differ in sampling alone share that run; an ensemble
has none of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from ..commands.diffseg import diffseg
from ..commands.finetune import finetune
from ..commands.probe import probe
from ..config import DiffSeg, Finetune, Split, Strategy, Study
from ..data.provenance import descends
from ..inference.members import Overrides
from ..inference.predictor import Predictor
from ..train.cases import read_dataset, with_more
from ..train.run import Run
from .generated import write_generated, write_labelled
from .sources import DENOISED, PLUS, PRETRAININGS, StudySources, network_settings, plan_settings

STRATEGIES = get_args(Strategy)
METHODS = (
    "scratch", "dynunet", *DENOISED, *PRETRAININGS,
    *STRATEGIES, *(f"{name}{PLUS}" for name in STRATEGIES), "ensemble",
)  # fmt: skip
PRETRAINED = (
    *DENOISED, *PRETRAININGS, *(f"{name}{PLUS}" for name in STRATEGIES),
)  # fmt: skip
"""Methods that need a pre-trained run."""


@dataclass(frozen=True)
class Variant:
    """A method as it stands in the results.

    Attributes:
        method: One of ``METHODS``.
        timestep: Fixed timestep, for finetune.
        weights: Which weights of the pre-trained run.
        pool: Unlabelled images that the pre-trained run saw; None: all.
        sampler: Reverse process of mask diffusion; None: the one of its settings.
        regime: How a way of pre-training is put to use: linear, nonlinear (probing) or finetune.
        head: Head of a probing run.
        suffix: What tells it from the plain method, in its name.
    """

    method: str
    timestep: int = 0
    weights: str = "average"
    pool: int | None = None
    sampler: str | None = None
    regime: str = "finetune"
    head: str | None = None
    suffix: str = ""

    @property
    def name(self) -> str:
        """As the results call it."""
        return self.method + self.suffix

    @property
    def trained(self) -> str:
        """Name of the run, which other samplers and heads share."""
        if self.head:
            return f"{self.method}-probe"
        return self.method if self.sampler else self.name


def variants(settings: Study) -> Iterator[Variant]:
    """Every method, with a variant for each further timestep, kind of weights, pool and sampler."""
    for method in settings.methods:
        plain = Variant(method, settings.finetune.timestep, settings.finetune.weights)
        if method == "finetune":
            first = dataclasses.replace(
                plain, timestep=settings.timesteps[0], weights=settings.weights[0]
            )
            yield first
            for t in settings.timesteps[1:]:
                yield dataclasses.replace(first, timestep=t, suffix=f"@t={t}")
            for weights in settings.weights[1:]:
                yield dataclasses.replace(first, weights=weights, suffix=f"@{weights}")
            for pool in settings.pools:
                yield dataclasses.replace(first, pool=pool, suffix=f"@n={pool}")
        elif method in PRETRAININGS:
            yield from regimes(plain, settings)
        else:
            yield plain
            if method.removesuffix(PLUS) in STRATEGIES and method.removesuffix(PLUS) != "none":
                for sampler in settings.samplers[1:]:
                    yield dataclasses.replace(plain, sampler=sampler, suffix=f"@{sampler}")


def regimes(plain: Variant, settings: Study) -> Iterator[Variant]:
    """A way of pre-training in each regime, and non-linear probes on each timestep of the sweep alone."""
    wanted = settings.probe or ("finetune",)
    for regime in wanted:
        suffix = f"@{regime}" if len(wanted) > 1 else ""
        head = None if regime == "finetune" else regime
        yield dataclasses.replace(plain, regime=regime, head=head, suffix=suffix)
        if head is None or regime == "linear" or plain.method not in ("diffusion", "guided"):
            continue
        for t in settings.probing.sweep:
            yield dataclasses.replace(
                plain, regime=regime, head=f"{head}@t={t}", suffix=f"{suffix}@t={t}"
            )


class StudyRuns:
    """Trains what a study needs, once; what is already there is opened.

    Args:
        settings: The study.
        out: Its folder.
        held: Patients from whom nothing may be trained on.
    """

    def __init__(self, settings: Study, out: Path, held: Set[str]) -> None:
        self.settings = settings
        self.out = out
        self.held = held
        self.sources = StudySources(settings, out)

    def predictor(self, variant: Variant, labels: int, draw: int) -> Predictor:
        """What segments the test cases."""
        several = variant.method == "ensemble"
        members = [Variant(name) for name in self.settings.ensemble] if several else [variant]
        runs = [self.run(member, labels, draw) for member in members]
        sampler = variant.sampler or self.settings.samplers[0]
        return Predictor.open(
            runs, self.settings.finetune.machine, Overrides(sampler=sampler, head=variant.head)
        )

    def run(self, variant: Variant, labels: int, draw: int) -> Run:
        """The trained run of a variant at a budget and draw."""
        folder = self.out / "runs" / f"{variant.trained}-{labels}-{draw}"
        if Run(folder).ended:
            return Run.open(folder)
        if variant.method.removesuffix(PLUS) in STRATEGIES:
            return self._diffseg(variant, labels, draw, folder)
        if variant.head:
            return self._probe(variant, labels, draw, folder)
        base = self._finetune(variant, labels, draw, folder)
        if variant.method in PRETRAININGS:
            start = self.sources.pretrained(variant.method)
            return finetune(dataclasses.replace(base, from_run=str(start.folder)))
        if variant.method == "scratch":
            return finetune(base)
        if variant.method == "dynunet":
            return finetune(dataclasses.replace(base, method="dynunet"))
        source = self.sources.denoiser(variant.pool)
        assert source is not None
        if variant.method == "ddep":
            decoder = self.sources.decoder()
            return finetune(dataclasses.replace(base, from_run=str(decoder.folder)))
        if variant.method == "generated":
            return self._generated(base, source)
        if variant.method == "synthetic-unlabelled":
            enlarged = self.sources.enlarged()
            return finetune(dataclasses.replace(base, from_run=str(enlarged.folder)))
        if variant.method == "synthetic-labelled":
            return self._synthetic(base, source)
        method = cast(Literal["finetune", "pixel"], variant.method)
        return finetune(dataclasses.replace(base, from_run=str(source.folder), method=method))

    # -------------------------------------------------------------------------------------------- internal

    def _probe(self, variant: Variant, labels: int, draw: int, folder: Path) -> Run:
        """All heads of a way of pre-training, in one run."""
        settings = self.settings.probing
        kinds = tuple(dict.fromkeys(r for r in self.settings.probe if r != "finetune"))
        return probe(
            dataclasses.replace(
                settings,
                data=self.settings.data,
                out=str(folder),
                from_run=str(self.sources.pretrained(variant.method).folder),
                heads=cast(tuple[Literal["linear", "nonlinear"], ...], kinds),
                labels=labels,
                draw=draw,
                split=self.settings.finetune.split,
                reader=self.settings.finetune.reader,
                machine=self.settings.finetune.machine,
                training=dataclasses.replace(settings.training, seed=draw, validate_every=0),
            )
        )

    def _finetune(self, variant: Variant, labels: int, draw: int, folder: Path) -> Finetune:
        settings = self.settings.finetune
        base = dataclasses.replace(
            settings,
            data=self.settings.data,
            out=str(folder),
            labels=labels,
            draw=draw,
            timestep=variant.timestep,
            weights=cast(Literal["average", "raw"], variant.weights),
            training=dataclasses.replace(settings.training, seed=draw, validate_every=0),
        )
        source = self.sources.first()
        if source is None:
            return base
        # A network from scratch sees and is what the pre-trained one saw and is.
        return dataclasses.replace(
            base, plan=plan_settings(source.plan), network=network_settings(source)
        )

    def _diffseg(self, variant: Variant, labels: int, draw: int, folder: Path) -> Run:
        settings = self.settings.diffseg
        base: DiffSeg = dataclasses.replace(
            settings,
            data=self.settings.data,
            out=str(folder),
            labels=labels,
            draw=draw,
            strategy=cast(Strategy, variant.method.removesuffix(PLUS)),
            split=self.settings.finetune.split,
            training=dataclasses.replace(settings.training, seed=draw, validate_every=0),
        )
        source = self.sources.first()
        if source is not None:
            base = dataclasses.replace(
                base, plan=plan_settings(source.plan), network=network_settings(source)
            )
            if variant.method.endswith(PLUS):
                base = dataclasses.replace(base, from_run=str(source.folder))
        return diffseg(base)

    def _synthetic(self, base: Finetune, source: Run) -> Run:
        """Label the synthetic images with the fine-tuned network of this draw, train on them and on the real ones."""
        assert base.labels is not None
        settings = self.settings
        films = read_dataset(settings.synthetic[0], base.reader)
        films = with_more(films, settings.synthetic[1:], base.reader)
        data = write_labelled(
            films.filter(lambda case: not descends(case, self.held)),
            self.run(Variant("finetune", base.timestep, base.weights), base.labels, base.draw),
            self.out / "synthetic" / f"{base.labels}-{base.draw}",
            reader=base.reader,
            machine=base.machine,
        )
        return finetune(
            dataclasses.replace(base, from_run=str(source.folder), with_run=(str(data),))
        )

    def _generated(self, base: Finetune, source: Run) -> Run:
        """Label images of the denoiser with the fine-tuned network of this draw, train on them."""
        assert base.labels is not None
        data = write_generated(
            source,
            self.run(Variant("finetune", base.timestep, base.weights), base.labels, base.draw),
            self.out / "generated" / f"{base.labels}-{base.draw}",
            count=self.settings.generated,
            seed=base.draw,
            machine=base.machine,
        )
        whole = Split(test=0.0, validation=0.0)
        return finetune(
            dataclasses.replace(
                base, data=str(data), labels=None, draw=0, from_run=str(source.folder), split=whole
            )
        )
