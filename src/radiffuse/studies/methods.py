"""The methods that a study compares, one row each: where it starts, how it is trained, and how it then segments.

A new method is one row of ``METHODS``; a new way of pre-training for it is one row of ``STARTS``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from ..config import MethodName, Strategy, Study
from ..config.pretraining import ObjectiveName
from ..config.segmenting import NO_COORDINATES
from ..config.studying import UNCHOSEN, SelectionRule


@dataclass(frozen=True)
class Pretraining:
    """A pre-trained run, made once per study by ``pretrain``.

    Attributes:
        folder: In the study folder.
        objective: Of the pre-training; None: the one of the study's settings.
        group: Group of the study's settings that it is trained with.
        given: The run that the user may name instead.
        from_run: Row of ``STARTS`` that it starts from.
        coordinates: Row of ``STARTS`` whose body coordinates guide it.
        synthetic: It sees the synthetic images as well, in the same number of steps.
    """

    folder: str
    objective: ObjectiveName | None = None
    group: Literal["pretrain", "regressor"] = "pretrain"
    given: Callable[[Study], str | None] = lambda study: None
    from_run: str | None = None
    coordinates: str | None = None
    synthetic: bool = False

    @property
    def guided(self) -> bool:
        """Whether it sees body coordinates, as what it starts from may."""
        return self.coordinates is not None or (
            self.from_run is not None and STARTS[self.from_run].guided
        )


DENOISER = "denoiser"
DRAWER = "joint+pool"
"""The method that draws pairs."""
STARTS: dict[str, Pretraining] = {
    DENOISER: Pretraining("pretrain", given=lambda study: study.from_run),
    "denoiser+synthetic": Pretraining("pretrain-synthetic", synthetic=True),
    "ddep": Pretraining("ddep", "ddep", from_run=DENOISER),
    "regressor": Pretraining(
        "coordinates", group="regressor", given=lambda study: study.pretrain.coordinates
    ),
    "guided": Pretraining("pretrain-guided", coordinates="regressor"),
    "restorative": Pretraining("pretrain-restorative", "restorative"),
    "contrastive": Pretraining("pretrain-contrastive", "contrastive"),
    "masked": Pretraining("pretrain-masked", "masked"),
    "clean-features": Pretraining("pretrain-clean", "clean-features", from_run=DENOISER),
    "guided-clean-features": Pretraining(
        "pretrain-guided-clean", "clean-features", from_run="guided"
    ),
}
"""What methods start from."""


@dataclass(frozen=True)
class Variant:
    """A row of the results: a method, or a method with one thing changed.

    Attributes:
        method: Name in ``METHODS``.
        timestep: Fixed timestep of fine-tuning.
        weights: Which weights of the pre-trained run.
        pool: How many unlabelled images the pre-trained run saw; None: all.
        sampler: Reverse process of mask diffusion; None: the first of the study's.
        head: Which head of a probing run segments; None: the network is fine-tuned.
        selection: How its labelled cases are chosen; None: at random.
        size: Side of the square that it sees films as; None: as the study's plan says.
        suffix: What follows the name of the method.
    """

    method: str
    timestep: int
    weights: Literal["average", "raw"]
    pool: int | None = None
    sampler: str | None = None
    head: str | None = None
    selection: SelectionRule | None = None
    size: int | None = None
    suffix: str = ""

    @property
    def row(self) -> StudyMethod:
        """What is done for the method."""
        return METHODS[self.method]

    @property
    def name(self) -> str:
        """Its name in the results."""
        return self.method + self.suffix

    @property
    def trained(self) -> str:
        """Name of its runs, which variants of other samplers and heads share."""
        base = self.method if self.sampler or self.selection else self.name
        base = f"{self.method}-probe" if self.head else base
        return f"{base}-{self.selection}" if self.selection else base


Vary = Callable[[Variant, Study], Iterator[Variant]]


def alone(plain: Variant, settings: Study) -> Iterator[Variant]:
    """The method without variants."""
    yield plain


def by_start(plain: Variant, settings: Study) -> Iterator[Variant]:
    """Variants with another timestep, other weights, or a smaller pool of unlabelled images."""
    first = dataclasses.replace(plain, timestep=settings.timesteps[0], weights=settings.weights[0])
    yield first
    for t in settings.timesteps[1:]:
        yield dataclasses.replace(first, timestep=t, suffix=f"@t={t}")
    for weights in settings.weights[1:]:
        yield dataclasses.replace(first, weights=weights, suffix=f"@{weights}")
    for pool in settings.pools:
        yield dataclasses.replace(first, pool=pool, suffix=f"@n={pool}")


def by_size(plain: Variant, settings: Study) -> Iterator[Variant]:
    """Variants that see films at another size."""
    yield plain
    for size in settings.sizes:
        yield dataclasses.replace(plain, size=size, suffix=f"@{size}px")


def by_sampler(plain: Variant, settings: Study) -> Iterator[Variant]:
    """Variants with another reverse process."""
    yield plain
    for sampler in settings.samplers[1:]:
        yield dataclasses.replace(plain, sampler=sampler, suffix=f"@{sampler}")


def by_transfer(plain: Variant, settings: Study) -> Iterator[Variant]:
    """Probed or fine-tuned; also probes without coordinates, and where it learned from noise on single timesteps."""
    wanted = settings.transfer or ("finetune",)
    for transfer in wanted:
        suffix = f"@{transfer}" if len(wanted) > 1 else ""
        if transfer == "finetune":
            yield dataclasses.replace(plain, suffix=suffix)
            continue
        yield dataclasses.replace(plain, head=transfer, suffix=suffix)
        if settings.places_heads and settings.probing.probe.sweep_coordinates:
            name = f"@{NO_COORDINATES}"
            yield dataclasses.replace(plain, head=f"{transfer}{name}", suffix=f"{suffix}{name}")
        denoising = STARTS[plain.row.start or DENOISER].objective is None
        for t in settings.probing.probe.sweep if denoising and transfer == "nonlinear" else ():
            yield dataclasses.replace(plain, head=f"{transfer}@t={t}", suffix=f"{suffix}@t={t}")


@dataclass(frozen=True)
class StudyMethod:
    """What a study does for a method.

    Attributes:
        start: Row of ``STARTS`` that it starts from; None: random weights.
        fit: Method of ``fit`` that trains it; None: nothing is trained here.
        strategy: Of mask diffusion, where that is how it is trained.
        pool: Images that it learns from beside the labelled ones: the ``unlabelled`` ones, or those ``drawn`` from the
            denoiser or the ``synthetic`` ones, which the fine-tuned network of the same draw labels; or ``pairs`` with
            masks, drawn by joint+pool of the same draw.
        vary: Its variants.
        segments: What segments the scored cases: its own run, the ensemble of other methods' runs, or nnU-Net.
    """

    start: str | None = None
    fit: MethodName | None = "finetune"
    strategy: Strategy | None = None
    pool: Literal["unlabelled", "drawn", "synthetic", "pairs"] | None = None
    vary: Vary = alone
    segments: Literal["run", "ensemble", "nnunet"] = "run"

    @property
    def pretraining(self) -> bool:
        """Whether it compares ways of pre-training, each transferred by the study's ``transfer``."""
        return self.vary is by_transfer

    @property
    def draws(self) -> bool:
        """Whether its masks are drawn by a reverse process."""
        return self.fit == "joint" or self.strategy not in (None, "none")

    @property
    def synthetic(self) -> bool:
        """Whether it needs synthetic images."""
        enlarged = self.start is not None and STARTS[self.start].synthetic
        return enlarged or self.pool == "synthetic"

    @property
    def taught(self) -> bool:
        """Whether the fine-tuned network of the same draw labels its pool."""
        return self.pool in ("drawn", "synthetic")


def _diffusion(strategy: Strategy, start: str | None = None) -> StudyMethod:
    vary = alone if strategy == "none" else by_sampler
    return StudyMethod(start, "diffusion", strategy=strategy, vary=vary)


METHODS: dict[str, StudyMethod] = {
    "scratch": StudyMethod(fit="scratch"),
    "dynunet": StudyMethod(fit="dynunet"),
    "imagenet": StudyMethod(fit="imagenet", vary=by_size),
    "dino": StudyMethod(fit="dino", vary=by_size),
    "nnunet": StudyMethod(fit=None, segments="nnunet"),
    "finetune": StudyMethod(DENOISER, vary=by_start),
    "pixel": StudyMethod(DENOISER, "pixel"),
    "ddep": StudyMethod("ddep"),
    "finetune+pool": StudyMethod(DENOISER, pool="unlabelled"),
    "scratch+pool": StudyMethod(fit="scratch", pool="unlabelled"),
    "dynunet+pool": StudyMethod(fit="dynunet", pool="unlabelled"),
    "imagenet+pool": StudyMethod(fit="imagenet", pool="unlabelled"),
    "dino+pool": StudyMethod(fit="dino", pool="unlabelled"),
    "pseudo-labels": StudyMethod(DENOISER, pool="drawn"),
    "synthetic-unlabelled": StudyMethod("denoiser+synthetic"),
    "synthetic-labelled": StudyMethod(DENOISER, pool="synthetic"),
    "diffusion": StudyMethod(DENOISER, vary=by_transfer),
    "guided": StudyMethod("guided", vary=by_transfer),
    "restorative": StudyMethod("restorative", vary=by_transfer),
    "contrastive": StudyMethod("contrastive", vary=by_transfer),
    "masked": StudyMethod("masked", vary=by_transfer),
    "clean-features": StudyMethod("clean-features", vary=by_transfer),
    "guided-clean-features": StudyMethod("guided-clean-features", vary=by_transfer),
    **{strategy: _diffusion(strategy) for strategy in get_args(Strategy)},
    **{f"{strategy}+pretrained": _diffusion(strategy, DENOISER) for strategy in get_args(Strategy)},
    "joint": StudyMethod(fit="joint", vary=by_sampler),
    "joint+pretrained": StudyMethod(DENOISER, "joint", vary=by_sampler),
    DRAWER: StudyMethod(DENOISER, "joint", pool="unlabelled", vary=by_sampler),
    "drawn-pairs": StudyMethod(DENOISER, pool="pairs"),
    "ensemble": StudyMethod(fit=None, segments="ensemble"),
}
"""All methods, by the name in ``--methods`` and in the results."""


def variants(settings: Study) -> Iterator[Variant]:
    """Every method of a study, each followed by its variants."""
    for name in settings.methods:
        yield from variants_of(name, settings)


def variants_of(name: str, settings: Study) -> Iterator[Variant]:
    """A method and its variants."""
    plain = Variant(name, settings.finetune.finetune.timestep, settings.finetune.weights)
    first, *others = METHODS[name].vary(plain, settings)
    yield from (first, *others)
    if name not in UNCHOSEN:
        yield from (with_selection(first, rule) for rule in settings.choices)


def reference_of(settings: Study) -> str:
    """The row that the others are compared with; that of the settings may be none of the rows."""
    names = [variant.name for variant in variants(settings)]
    return settings.reference or ("scratch" if "scratch" in names else names[0])


def group_of(variant: Variant) -> Literal["finetune", "probing", "diffusion"]:
    """The group of the study's settings that a variant is trained with."""
    if variant.head:
        return "probing"
    return "diffusion" if variant.row.draws or variant.row.strategy else "finetune"


def shared_start(settings: Study) -> str | None:
    """The row of ``STARTS`` whose plan and network all methods share; None without unlabelled images or ``--from``."""
    if not settings.from_run and (not settings.unlabelled or settings.unstarted):
        return None
    rows = [METHODS[name] for name in settings.methods if METHODS[name].start]
    return rows[0].start if rows and all(row.pretraining for row in rows) else DENOISER


def pretrainings(settings: Study) -> list[str]:
    """Folders of the pre-training that a study makes itself, of all images and of the smaller pools."""
    waiting = [METHODS[name].start for name in settings.trained] + [shared_start(settings)]
    found: set[str] = set()
    while waiting:
        if (name := waiting.pop()) and not STARTS[name].given(settings):
            found.add(STARTS[name].folder)
            waiting += [STARTS[name].from_run, STARTS[name].coordinates]
    pools = {row.pool for row in variants(settings) if row.pool}
    return sorted(found | {f"{STARTS[DENOISER].folder}-{pool}" for pool in pools})


def with_selection(variant: Variant, rule: SelectionRule) -> Variant:
    """The variant whose labelled cases are chosen by a rule of ``select``, as finetune@typical."""
    return dataclasses.replace(variant, selection=rule, suffix=f"{variant.suffix}@{rule}")


def trained_alike(name: str, settings: Study) -> Variant:
    """The first variant of a method, fine-tuned rather than probed: a member of an ensemble, or a labeller."""
    first = next(variants_of(name, settings))
    return dataclasses.replace(first, head=None, suffix="")


def trainings(settings: Study) -> list[str]:
    """Names of the runs that a study needs, ``TRAINED-LABELS-DRAW``: of its rows, and of what they are made with.

    The latter are the members of an ensemble, who labels or draws a pool, and the half that chooses uncertain cases.
    """
    needed = set[tuple[str, int]]()
    waiting = [(v, n) for v in variants(settings) for n in settings.labels]
    while waiting:
        variant, labels = waiting.pop()
        if (variant.trained, labels) in needed:
            continue
        row = variant.row
        if row.segments != "ensemble":
            needed.add((variant.trained, labels))
        others = [*(settings.ensemble if row.segments == "ensemble" else ())]
        others += ["finetune"] * row.taught + [DRAWER] * (row.pool == "pairs")
        waiting += [(trained_alike(name, settings), labels) for name in others]
        if variant.selection == "uncertain" and labels > 1:
            first = dataclasses.replace(variant, selection="typical", suffix="@typical")
            waiting.append((first, (labels + 1) // 2))
    return sorted(f"{name}-{n}-{draw}" for name, n in needed for draw in range(settings.draws))
