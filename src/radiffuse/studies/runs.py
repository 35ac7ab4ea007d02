"""The runs behind a study: each is trained once, and opened where it is already there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import (
    FIT,
    Data,
    Fit,
    Generate,
    Machine,
    Network,
    PlanSettings,
    Pretrain,
    Probing,
    Split,
    Study,
)
from ..config.values import from_dict
from ..data.dataset import Dataset
from ..data.layouts import open_dataset
from ..data.plan import make_plan
from ..data.splits import Splits, write_splits
from ..errors import InputError
from ..inference.members import Overrides
from ..inference.predictor import Predictor
from ..inference.selection import choose_typical, choose_uncertain
from ..objectives import OBJECTIVES, learned_from_noise, start_for
from ..objectives.probing import TIMESTEPS
from ..system.saying import say
from ..train.cases import open_more
from ..train.device import local_device
from ..train.further_images import look_at_further
from ..train.open_settings import network_is_open
from ..train.pretraining import CropPairObjective
from ..train.run import Run
from ..train.start import find_pretrained, is_segmenter, not_pretrained
from .drawn import draw_pool
from .folder import stand_pools
from .methods import (
    DENOISER,
    DRAWER,
    METHODS,
    STARTS,
    StudyMethod,
    Variant,
    group_of,
    shared_start,
    trained_alike,
)


class StudyRuns:
    """Trains what a study needs, by the commands ``pretrain``, ``fit`` and ``generate``.

    Args:
        settings: The study.
        dataset: The labelled cases.
        splits: Their parts. Nothing learns from patients of validation and test, or images that descend from them.
        pretrain: Trains what methods start from.
        fit: Trains what segments.
        generate: Draws pairs.
    """

    def __init__(
        self,
        settings: Study,
        dataset: Dataset,
        splits: Splits,
        pretrain: Callable[[Pretrain], Run],
        fit: Callable[[Fit], Run],
        generate: Callable[[Generate], Path],
    ) -> None:
        self.settings, self.out = settings, Path(settings.out)
        self.dataset, self.splits = dataset, splits
        self.pretrain, self.fit, self.generate = pretrain, fit, generate
        self.start = functools.cache(self._start)
        self.closed = functools.cache(_closed)

    def refuse_timesteps(self) -> None:
        """Refuse methods and timesteps that a denoiser knows, where the pre-training that methods share makes none.

        Raises:
            InputError: Names the setting.
        """
        given = self.settings
        if given.from_run:
            run = find_pretrained(given.from_run)
            if is_segmenter(run):
                raise not_pretrained(run)
            where, noised = f"--from {given.from_run}", learned_from_noise(run)
            objective = run.config["settings"].get("objective")
        else:
            objective = given.pretrain.objective
            where, noised = f"--pretrain.objective {objective}", OBJECTIVES[objective].noised
        rows = {name: METHODS[name] for name in given.trained if METHODS[name].start == DENOISER}
        if noised or not rows:
            return
        asked = [n for n, row in rows.items() if row.fit == "pixel" or row.pool == "drawn"]
        timesteps = {*given.timesteps, given.finetune.finetune.timestep} - {0}
        if any(row.fit == "finetune" for row in rows.values()):
            asked += [f"fine-tuning at timestep {t}" for t in sorted(timesteps)]
        if asked:
            problem = f"is of {objective}, which knows no timesteps, and {asked[0]} needs them"
            raise InputError(where, problem, "Leave that out, or pre-train by ddpm")

    def look_at_pool(self) -> None:
        """Say before anything is trained what ``fit`` would say of the pool with the most labels, or refuse.

        Raises:
            InputError: As ``look_at_further``; or the pool or the synthetic images are others than at first.
        """
        given, kinds = self.settings, {METHODS[name].pool for name in self.settings.trained}
        reader = (given.finetune if "synthetic" in kinds else given.pretrain).reader
        pools = {f"synthetic {i}": open_more(one, reader) for i, one in enumerate(given.synthetic)}
        if given.unlabelled and "unlabelled" in kinds:
            pools["pool"] = open_more(given.unlabelled, given.finetune.reader)
        stand_pools(self.out, pools)
        if "pool" in pools:
            assert given.unlabelled is not None
            for draw in range(given.draws):
                fit = replace(given.finetune, labels=max(given.labels), draw=draw)
                pooled = replace(fit, unlabelled=(given.unlabelled,))
                look_at_further(pooled, self.dataset, self.splits)

    def shared(self) -> Run | None:
        """The run whose plan and network every method shares; None without unlabelled images."""
        first = shared_start(self.settings)
        return self.start(first) if first else None

    def predictor(self, variant: Variant, labels: int, draw: int) -> Predictor:
        """What segments the cases."""
        members = [variant]
        if variant.row.segments == "ensemble":
            members = [trained_alike(name, self.settings) for name in self.settings.ensemble]
        runs = [self.run(member, labels, draw) for member in members]
        drawn = any(member.row.draws for member in members)
        sampler = (variant.sampler or self.settings.samplers[0]) if drawn else None
        overrides = Overrides(sampler=sampler, head=variant.head)
        return Predictor.open(runs, self.settings.finetune.machine, overrides)

    def run(self, variant: Variant, labels: int, draw: int) -> Run:
        """The trained run of a variant with a budget of labels, in a draw."""
        folder = self.out / "runs" / f"{variant.trained}-{labels}-{draw}"
        if Run(folder).ended:
            return Run.open(folder)
        settings = self._fit(variant, folder, labels, draw)
        if variant.row.pool:
            settings = replace(settings, **self._pool(variant.row, labels, draw))
        return self.fit(settings)

    # -------------------------------------------------------------------------------------------- internal

    def _fit(self, variant: Variant, folder: Path, labels: int, draw: int) -> Fit:
        """Settings with which a variant is trained."""
        given, group = self.settings, group_of(variant)
        base: Fit = getattr(given, group)
        changes = self._of_group(variant, base) | self._planned(variant, base)
        if variant.row.fit != "dino":
            changes["encoder"] = None
        if variant.row.start:
            changes |= self._started(variant, changes)
        if group != "finetune":  # the same cases, patients and classes, in the same parts
            reader = given.finetune.reader
            cache, skip_bad = base.reader.cache or reader.cache, base.reader.skip_bad
            reader = replace(reader, cache=cache, skip_bad=skip_bad or reader.skip_bad)
            changes["reader"] = reader
        training = replace(base.training, seed=draw, validate_every=0)
        usual: Fit = getattr(Study(), group)
        if base.hours is not None and training.steps == usual.training.steps:
            training = replace(training, steps=None)  # nobody gave them: the hours decide
        return replace(
            base,
            data=given.data,
            out=str(folder),
            labels=labels,
            training=training,
            **{"draw": draw} | changes | self._chosen(variant, labels, draw),
        )

    def _of_group(self, variant: Variant, base: Fit) -> dict[str, Any]:
        """What the group of settings that a variant is trained by leaves to the study."""
        given, row, group = self.settings, variant.row, group_of(variant)
        changes: dict[str, Any] = {"method": row.fit}
        if group == "probing":
            kinds = tuple(dict.fromkeys(t for t in given.transfer if t != "finetune"))
            probe = replace(base.probe, heads=kinds, regressor=self._places(row))
            if not given.places_heads:  # that this has no effect was said
                probe = replace(probe, sweep_coordinates=False)
            changes = {"method": "probe", "probe": probe}
            changes |= {"split": given.finetune.split, "machine": given.finetune.machine}
        elif group == "diffusion":
            changes |= {"split": given.finetune.split}
            if row.strategy:
                changes |= {"diffusion": replace(base.diffusion, strategy=row.strategy)}
            elif base.loss == FIT["diffusion"].loss:
                changes |= {"loss": FIT["joint"].loss}
        else:
            changes |= {"finetune": replace(base.finetune, timestep=variant.timestep)}
            changes |= {"weights": variant.weights}
        return changes

    def _planned(self, variant: Variant, base: Fit) -> dict[str, Any]:
        """Plan and network: a network from scratch has those of the pre-trained one, where there is one."""
        changes: dict[str, Any] = {}
        if not variant.head and (shared := self.shared()):
            network = from_dict(Network, shared.config["settings"]["network"])
            plan = shared.plan.settings()
            plan = replace(plan, postprocess=base.plan.postprocess or plan.postprocess)
            changes |= {"plan": plan, "network": network}
        elif not variant.head:
            test = frozenset(self.splits.test)
            changes |= self.closed(self.settings.data, base.plan, base.network, base.reader, test)
        if variant.size:
            seen: PlanSettings = changes.get("plan", base.plan)
            changes["plan"] = replace(seen, size=(variant.size,), grid=None)
        return changes

    def _started(self, variant: Variant, changes: dict[str, Any]) -> dict[str, Any]:
        """The run that a variant starts from; one that knows no timesteps is asked for none."""
        assert variant.row.start is not None
        start = self.start(variant.row.start, variant.pool)
        found: dict[str, Any] = {"from_run": str(start.folder)}
        if variant.head and not learned_from_noise(start):
            clean = {name: getattr(Probing(), name) for name in TIMESTEPS.split()}
            found["probe"] = replace(changes["probe"], **clean)
        elif group_of(variant) == "finetune" and not learned_from_noise(start):
            found["finetune"] = replace(changes["finetune"], timestep=0)
        return found

    def _places(self, row: StudyMethod) -> str | None:
        """The run whose coordinates heads see, where the network is not guided: what guides a rival."""
        given = self.settings
        assert row.start is not None
        if STARTS[row.start].guided or not given.probing.probe.coordinates:
            return None
        if given.guides:
            return str(self.start("regressor").folder)
        return given.probing.probe.regressor

    def _chosen(self, variant: Variant, labels: int, draw: int) -> dict[str, Any]:
        """Settings by which the chosen cases are the labelled ones, the draw being the seed of the choice.

        The uncertain ones are chosen by the network that was trained on half as many, which are typical.
        """
        if variant.selection is None:
            return {}
        path = self.out / "chosen" / f"{variant.trained}-{labels}-{draw}.json"
        if not path.is_file():
            half = (labels + 1) // 2 if variant.selection == "uncertain" else labels
            pool = self.dataset.filter(lambda case: case.name in self.splits.train)
            names = self._typical(pool, half, draw)
            if half < labels:
                first = replace(variant, selection="typical", suffix="@typical")
                names += self._uncertain(
                    pool, names, labels - half, self.predictor(first, half, draw), draw
                )
            everything = self.splits.budget(len(self.splits.train), draw)
            rest = [name for name in everything if name not in names]
            write_splits(path, replace(self.splits, draws=((*names, *rest),)))
        return {"split": Split(file=str(path)), "draw": 0}

    def _typical(self, pool: Dataset, count: int, seed: int) -> list[str]:
        given, shared = self.settings.finetune, self.shared()
        start, _ = start_for(pool, str(shared.folder) if shared else None)
        chosen = choose_typical(
            pool, (), count, start=start, device=local_device(given.machine).device,
            seed=seed, skip_bad=given.reader.skip_bad,
        )  # fmt: skip
        return [selected.case.name for selected in chosen]

    def _uncertain(
        self, pool: Dataset, known: list[str], count: int, predictor: Predictor, seed: int
    ) -> list[str]:
        chosen = choose_uncertain(
            pool.filter(lambda case: case.name not in known),
            {case.group for case in pool if case.name in known},
            count, predictor=predictor, labels=len(known),
            seed=seed, skip_bad=self.settings.finetune.reader.skip_bad,
        )  # fmt: skip
        return [selected.case.name for selected in chosen]

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
        plan, reader = changes.get("plan", base.plan), changes.get("reader", base.reader)
        changes |= self.closed(given.unlabelled, plan, base.network, reader)
        if row.objective == "clean-features":  # it has those of its start
            changes |= {"plan": PlanSettings(), "network": Network()}
        stand_pools(self.out, {"unlabelled": open_dataset(given.unlabelled, base.reader)})
        settings = replace(base, data=given.unlabelled, out=str(folder), **changes)
        say(f"pre-training on {f'{pool} images of ' if pool else ''}{given.unlabelled}: {folder}")
        return self.pretrain(settings if row.group == "regressor" else _as_many_images(settings))

    def _pool(self, row: StudyMethod, labels: int, draw: int) -> dict[str, Any]:
        """What a method learns from beside the labelled images, and who labels it."""
        given, pool = self.settings, self.settings.finetune.pool
        if row.pool == "pairs":
            return {"with_run": (*given.finetune.with_run, str(self._pairs(labels, draw)))}
        if not row.taught:
            assert given.unlabelled is not None
            return {"unlabelled": (given.unlabelled,), "pool": pool}
        teacher = self.run(trained_alike("finetune", given), labels, draw)
        images = given.synthetic
        if row.pool == "drawn":
            count, machine = given.pseudo_labels, given.finetune.machine
            out, denoiser = self.out / "drawn" / str(draw), self.start(DENOISER)
            images = (str(draw_pool(denoiser, out, count=count, seed=draw, machine=machine)),)
        return {"unlabelled": images, "pool": replace(pool, teacher=str(teacher.folder))}

    def _pairs(self, labels: int, draw: int) -> Path:
        """Images with their masks, drawn by the joint run of the same draw, in 32 bits as ``generate`` computes."""
        given, joint = self.settings, self.run(trained_alike(DRAWER, self.settings), labels, draw)
        out = self.out / "drawn" / f"pairs-{labels}-{draw}"
        asked = given.finetune.machine
        machine = replace(Machine(), accelerator=asked.accelerator, threads=asked.threads)
        count, run = given.pseudo_labels, str(joint.folder)
        return self.generate(
            Generate(run=run, out=str(out), count=count, seed=draw, machine=machine)
        )


def _as_many_images(settings: Pretrain) -> Pretrain:
    """Half the batch where the network sees two crops of every sample, else half the steps: all rivals see as many."""
    training = settings.training
    if not issubclass(OBJECTIVES[settings.objective], CropPairObjective):
        return settings
    if training.batch_size and training.batch_size % 2 == 0:
        return replace(settings, training=replace(training, batch_size=training.batch_size // 2))
    steps = training.steps and (training.steps + 1) // 2
    return replace(settings, training=replace(training, steps=steps))


def _closed(
    path: str,
    plan: PlanSettings,
    network: Network,
    reader: Data,
    test: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Plan and network where they are open: the same for all methods and machines, without the cases of ``test``."""
    if plan.size is None:
        dataset = open_dataset(path, reader).filter(lambda case: case.name not in test)
        plan = make_plan(dataset, plan, labelled=False, skip_bad=reader.skip_bad).settings()
    return {
        "plan": plan,
        "network": Network(preset="tiny") if network_is_open(network) else network,
    }
