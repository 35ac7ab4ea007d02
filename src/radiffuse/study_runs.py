"""The runs behind a study: what each of its methods trains, from what, and how it then predicts.

A method is trained once for each budget and draw. Variants that differ in sampling alone share that run; an ensemble
has none of its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from .config import DiffSeg, Finetune, Network, PlanSettings, Split, Strategy, Study
from .data.plan import Plan
from .engine.run import Run
from .inference.members import Overrides
from .inference.predictor import Predictor
from .methods.common import find_pretrained
from .methods.diffseg import diffseg
from .methods.finetune import finetune
from .methods.generated import write_generated
from .methods.pretrain import pretrain
from .settings import from_dict

STRATEGIES = get_args(Strategy)
PLUS = "+pretrained"
"""Ending of the name of a strategy that starts from the pre-trained run."""
METHODS = (
    "scratch", "finetune", "pixel", "ddep", "generated",
    *STRATEGIES, *(f"{name}{PLUS}" for name in STRATEGIES), "ensemble",
)  # fmt: skip
PRETRAINED = ("finetune", "pixel", "ddep", "generated", *(f"{name}{PLUS}" for name in STRATEGIES))
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
        suffix: What tells it from the plain method, in its name.
    """

    method: str
    timestep: int = 0
    weights: str = "average"
    pool: int | None = None
    sampler: str | None = None
    suffix: str = ""

    @property
    def name(self) -> str:
        """As the results call it."""
        return self.method + self.suffix

    @property
    def trained(self) -> str:
        """Name of the run, which other samplers share."""
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
        else:
            yield plain
            if method.removesuffix(PLUS) in STRATEGIES and method.removesuffix(PLUS) != "none":
                for sampler in settings.samplers[1:]:
                    yield dataclasses.replace(plain, sampler=sampler, suffix=f"@{sampler}")


class StudyRuns:
    """Trains what a study needs, once; what is already there is opened.

    Args:
        settings: The study.
        out: Its folder.
    """

    def __init__(self, settings: Study, out: Path) -> None:
        self.settings = settings
        self.out = out
        self.pretrained = functools.cache(self._pretrained)
        self.decoder = functools.cache(self._decoder)

    def predictor(self, variant: Variant, labels: int, draw: int) -> Predictor:
        """What segments the test cases."""
        several = variant.method == "ensemble"
        members = [Variant(name) for name in self.settings.ensemble] if several else [variant]
        runs = [self.run(member, labels, draw) for member in members]
        sampler = variant.sampler or self.settings.samplers[0]
        return Predictor.open(runs, self.settings.finetune.machine, Overrides(sampler=sampler))

    def run(self, variant: Variant, labels: int, draw: int) -> Run:
        """The trained run of a variant at a budget and draw."""
        folder = self.out / "runs" / f"{variant.trained}-{labels}-{draw}"
        if (folder / "model" / "config.json").exists():
            return Run.open(folder)
        if variant.method.removesuffix(PLUS) in STRATEGIES:
            return self._diffseg(variant, labels, draw, folder)
        source = self.pretrained(variant.pool)
        base = self._finetune(variant, labels, draw, folder)
        if variant.method == "scratch" or source is None:
            return finetune(base)
        if variant.method == "ddep":
            return finetune(dataclasses.replace(base, from_run=str(self.decoder().folder)))
        if variant.method == "generated":
            return self._generated(base, source)
        method = cast(Literal["finetune", "pixel"], variant.method)
        return finetune(dataclasses.replace(base, from_run=str(source.folder), method=method))

    # -------------------------------------------------------------------------------------------- internal

    def _pretrained(self, pool: int | None = None) -> Run | None:
        if self.settings.from_run:
            return find_pretrained(self.settings.from_run)
        if not self.settings.unlabelled:
            return None
        folder = self.out / ("pretrain" if pool is None else f"pretrain-{pool}")
        if (folder / "model" / "config.json").exists():
            return Run.open(folder)
        limit = self.settings.pretrain.limit if pool is None else pool
        return pretrain(
            dataclasses.replace(
                self.settings.pretrain, data=self.settings.unlabelled, out=str(folder), limit=limit
            )
        )

    def _decoder(self) -> Run:
        """The rival: the encoder of the pre-trained run, its decoder trained anew at one noise level."""
        source = self.pretrained(None)
        assert source is not None
        assert self.settings.unlabelled is not None
        folder = self.out / "ddep"
        if (folder / "model" / "config.json").exists():
            return Run.open(folder)
        return pretrain(
            dataclasses.replace(
                self.settings.pretrain,
                data=self.settings.unlabelled,
                out=str(folder),
                objective="ddep",
                from_run=str(source.folder),
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
        source = self.pretrained(None)
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
        source = self.pretrained(None)
        if source is not None:
            base = dataclasses.replace(
                base, plan=plan_settings(source.plan), network=network_settings(source)
            )
            if variant.method.endswith(PLUS):
                base = dataclasses.replace(base, from_run=str(source.folder))
        return diffseg(base)

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
