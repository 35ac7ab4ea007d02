"""Fine-tuning for segmentation (Rousseau et al. 2023), training from scratch, and pixel classifiers.

The denoiser becomes a segmenter by replacing its last convolution; it sees the clean image at a fixed timestep and
everything stays trainable. Without a pre-trained run the same network starts from random weights. ``pixel`` keeps the
denoiser frozen and trains small classifiers on its features (Baranchuk et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import Diffusion, Finetune, Machine, resolve_network
from ..data.batches import Batch, Batches
from ..data.dataset import IGNORE, Dataset
from ..data.plan import Plan
from ..data.prepare import cache_folder
from ..data.splits import load_splits, write_splits
from ..engine.loop import Loss, train
from ..engine.random import StepRandom
from ..engine.run import Run, start_run
from ..errors import InputError
from ..evaluation.writing import write_evaluation
from ..files import write_atomic
from ..inference.predictor import Predictor
from ..nets.pixel import PixelClassifier
from ..nets.registry import load_network, save_network
from ..nets.segmenter import Segmenter
from ..nets.unet import UNet
from ..reports.run import write_run_report
from ..settings import from_dict, to_dict
from .common import (
    describe_data,
    find_pretrained,
    plan_of,
    prepare_dataset,
    read_dataset,
    verify_size,
)

DICE_SMOOTHING = 1e-5


class Segmentation:
    """The task: label every pixel of a clean image.

    Args:
        network: The segmenter at its start.
        loss: ``ce`` or ``ce+dice``.
        predictor: Scores the validation cases; None: no validation.
    """

    name = "segmentation"

    def __init__(
        self, network: nn.Module, loss: str, validation: Mapping[str, Tensor] | None = None
    ) -> None:
        self.network = network
        self.with_dice = loss == "ce+dice"
        self.validation = validation

    def build(self) -> nn.Module:
        """The segmenter at its start."""
        return self.network

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Cross-entropy, and Dice loss if asked for."""
        assert batch.labels is not None
        logits = network(batch.images).float()
        cross_entropy = masked_cross_entropy(logits, batch.labels)
        if not self.with_dice:
            return Loss(cross_entropy)
        dice = dice_loss(logits, batch.labels)
        terms = {"cross_entropy": float(cross_entropy.detach()), "dice_loss": float(dice.detach())}
        return Loss(cross_entropy + dice, terms)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice over validation images on the plan's grid, foreground classes that are present."""
        if self.validation is None:
            return {}
        images, labels = self.validation["images"], self.validation["labels"]
        scores = []
        for i in range(0, len(images), 16):
            logits = network(images[i : i + 16].to(device)).float().cpu()
            scores += grid_dice(logits.argmax(1), labels[i : i + 16], logits.shape[1])
        return {"dice": float(np.nanmean(scores))} if scores else {}

    def state_dict(self) -> dict[str, Tensor]:
        """The task learns nothing beside its network."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""


class PixelProbing(Segmentation):
    """The task: classify random pixels from frozen features; features are computed anew, never stored.

    Args:
        network: The pixel classifier at its start.
        validation: As in ``Segmentation``.
        pixels: Labelled pixels of each image that a step uses.
    """

    name = "pixel"

    def __init__(
        self,
        network: PixelClassifier,
        validation: Mapping[str, Tensor] | None = None,
        pixels: int = 1024,
    ) -> None:
        super().__init__(network, "ce", validation)
        self.pixels = pixels

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Mean cross-entropy of the voters on random labelled pixels."""
        assert batch.labels is not None
        flat = batch.labels.flatten(1)
        keys = torch.rand(
            (random.total, flat.shape[1]), generator=random.generator, device=flat.device
        )
        chosen = random.share(keys).masked_fill(flat == IGNORE, 2.0).argsort(1)[:, : self.pixels]
        labels = flat.gather(1, chosen)
        votes = network(batch.images, chosen)
        losses = [
            masked_cross_entropy(vote.flatten(0, 1).float(), labels.flatten()) for vote in votes
        ]
        return Loss(torch.stack(losses).mean())


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy where the label is not 255; 0 where all of it is.

    Args:
        logits: ``(B, K, *S)``.
        labels: ``(B, *S)`` int64.
    """
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - soft Dice, mean over images and the foreground classes present in each; 0 where none is.

    Args:
        logits: ``(B, K, *S)``.
        labels: ``(B, *S)`` int64, 255 is left out.
    """
    counted = labels != IGNORE
    safe = labels.masked_fill(~counted, 0)
    truth = functional.one_hot(safe, logits.shape[1]).movedim(-1, 1).float() * counted[:, None]
    share = logits.softmax(1) * counted[:, None]
    overlap = (truth * share).flatten(2).sum(2)[:, 1:]
    volume = (truth + share).flatten(2).sum(2)[:, 1:]
    present = truth.flatten(2).sum(2)[:, 1:] > 0
    dice = (2 * overlap + DICE_SMOOTHING) / (volume + DICE_SMOOTHING)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


def grid_dice(prediction: Tensor, labels: Tensor, classes: int) -> list[float]:
    """Dice of each image, mean over foreground classes in truth or prediction; NaN where there is none."""
    scores = []
    for guess, truth in zip(prediction, labels, strict=True):
        counted = truth != IGNORE
        found = []
        for value in range(1, classes):
            a, b = (guess == value) & counted, (truth == value) & counted
            total = int(a.sum() + b.sum())
            if total:
                found.append(2 * float((a & b).sum()) / total)
        scores.append(float(np.mean(found)) if found else float("nan"))
    return scores


def finetune(settings: Finetune) -> Run:
    """Train a segmentation network on labelled images.

    Args:
        settings: See ``radiffuse.config.Finetune``.

    Returns:
        The run: its model is the segmenter with averaged weights.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    with start_run(settings.out, "finetune", to_dict(settings)) as run:
        dataset = read_dataset(settings.data, settings.reader).labelled
        if not len(dataset):
            raise InputError(settings.data, "holds no labelled image", "See radiffuse check")
        cache = cache_folder(settings.reader.cache)
        splits = load_splits(dataset, settings.split, cache, settings.draw)
        budget = splits.budget(settings.labels, settings.draw)
        write_splits(run.folder / "splits.json", splits)
        source = find_pretrained(settings.from_run) if settings.from_run else None
        plan = _plan(run, dataset, settings, source)
        used = set(budget) | set(splits.validation)
        prepared = prepare_dataset(
            dataset.filter(lambda case: case.name in used),
            plan,
            settings.reader,
            settings.machine,
            labelled=True,
        )
        place = {case.name: i for i, case in enumerate(prepared.cases)}
        run.write_data(
            describe_data(dataset, prepared, {"train": budget, "validation": splits.validation})
        )
        held_out = [place[name] for name in splits.validation if name in place]
        validation = None
        if held_out and plan.spatial_dims == 2:
            validation = {
                "images": _stack(prepared.image, held_out, np.float32),
                "labels": _stack(prepared.label, held_out, np.int64),
            }
        network = build_network(settings, plan, source)
        task = (
            PixelProbing(network, validation)
            if isinstance(network, PixelClassifier)
            else Segmentation(network, settings.loss, validation)
        )
        batches = Batches(
            prepared,
            batch_size=settings.training.batch_size,
            seed=settings.training.seed,
            augmentation=settings.augmentation,
            indices=[place[name] for name in budget if name in place],
        )
        trained = train(task, batches, run, settings.training, settings.machine)
        save_network(trained.average, run.model)
        if held_out and settings.training.validate_every:
            score_cases(
                run, dataset, splits.validation, run.folder / "validation", settings.machine
            )
        write_run_report(run.folder)
    return run


def score_cases(
    run: Run,
    dataset: Dataset,
    names: Sequence[str],
    out: Path,
    machine: Machine,
    tolerance: float = 2.0,
) -> Path:
    """Segment the named cases at their own resolution and write cases.csv and overlays.npz.

    Args:
        run: A finished segmentation run.
        dataset: Where the cases are.
        names: Which cases.
        out: Folder to write to.
        machine: Device and precision.
        tolerance: Of the surface Dice, in mm.
    """
    wanted = set(names)
    chosen = dataset.filter(lambda case: case.name in wanted)
    return write_evaluation(
        Predictor.open(run, machine).pairs(chosen),
        run.plan.classes,
        out,
        tolerance=tolerance,
        groups={case.name: case.group for case in chosen},
    )


def build_network(settings: Finetune, plan: Plan, source: Run | None) -> nn.Module:
    """The network at its start: from a pre-trained denoiser, or from scratch.

    Raises:
        InputError: The method needs a pre-trained run, or the run does not fit.
    """
    generator = torch.Generator().manual_seed(settings.training.seed)
    classes = len(plan.classes)
    if source is None:
        if settings.method == "pixel":
            raise InputError(
                "--method pixel", "needs a pre-trained network", "Give one with --from"
            )
        unet = resolve_network(
            settings.network,
            spatial_dims=plan.spatial_dims,
            in_channels=len(plan.channels),
            out_channels=classes,
        )
        verify_size(plan, unet)
        return Segmenter.from_scratch(unet, timestep=settings.timestep, generator=generator)
    denoiser = load_network(source.model, "raw" if settings.weights == "raw" else "model")
    if not isinstance(denoiser, UNet):
        raise InputError(
            source.folder, "is not a pre-trained denoiser", "Give a run of radiffuse pretrain"
        )
    diffusion = from_dict(Diffusion, source.config["settings"]["diffusion"])
    if not 0 <= settings.timestep < diffusion.num_train_timesteps:
        raise InputError(
            f"--timestep {settings.timestep}",
            f"the pre-trained network knows timesteps 0 to {diffusion.num_train_timesteps - 1}",
            "Choose one of them",
        )
    verify_size(plan, denoiser.config)
    if settings.method == "pixel":
        return PixelClassifier(denoiser, diffusion, classes, seed=settings.training.seed)
    return Segmenter.from_denoiser(
        denoiser, classes=classes, timestep=settings.timestep, generator=generator
    )


# ------------------------------------------------------------------------------------------------ internal


def _plan(run: Run, dataset: Dataset, settings: Finetune, source: Run | None) -> Plan:
    """The pre-trained run's treatment with this data's classes; or a plan of the data's own."""
    from ..data.plan import find_classes

    if source is None or (run.folder / "plan.json").exists():
        return plan_of(run, dataset, settings.plan, labelled=True)
    plan = source.plan.with_classes(find_classes(dataset))
    if len(plan.channels) != len(dataset.channels):
        raise InputError(
            dataset.root,
            f"has {len(dataset.channels)} channels, the pre-trained run has {len(plan.channels)}",
            "Pre-train on images of the same channels",
        )
    write_atomic(run.folder / "plan.json", plan.to_json())
    return plan


def _stack(read: object, indices: Sequence[int], dtype: type) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(read(i), dtype) for i in indices]))  # type: ignore[operator]
