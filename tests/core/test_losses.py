"""Segmentation losses: against their formulas, and finite where there is nothing to find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from radiffuse.config import IGNORE, Losses
from radiffuse.core.losses import (
    cross_entropy,
    dice_loss,
    dice_scores,
    focal_loss,
    one_hot,
    segmentation_loss,
)
from radiffuse.core.masks import logits_to_x_start, mask_to_x_start

ALL = Losses(cross_entropy=1.0, dice=1.0, focal=20.0)


def example(ignored: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 6, generator=generator)
    labels = torch.randint(0, 3, (2, 6, 6), generator=generator)
    labels[1][labels[1] == 2] = 1  # class 2 is absent from the second image
    labels[:, :ignored] = IGNORE
    return logits, labels


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6)])
def test_labels_are_laid_out_as_the_logits_that_they_meet(shape: tuple[int, ...]) -> None:
    """Class by class: with the classes last, Dice of a hundred takes twice as long."""
    labels = torch.randint(0, 4, (2, *shape), generator=torch.Generator().manual_seed(0))
    labels[:, 0] = IGNORE
    found = one_hot(labels, 4)
    assert found.is_contiguous()
    for value in range(4):
        expected = (labels == value) | ((labels == IGNORE) & (value == 0))
        assert torch.equal(found[:, value], expected.float())


def test_dice_loss_against_the_formula() -> None:
    logits, labels = example()
    p, expected = logits.softmax(1).numpy(), []
    for image in range(2):
        found = []
        for value in (1, 2):
            truth = (labels[image] == value).numpy()[1:]
            if truth.any():
                share = p[image, value, 1:]
                found.append(1 - 2 * (share * truth).sum() / (share.sum() + truth.sum()))
        expected.append(np.mean(found))
    np.testing.assert_allclose(dice_loss(logits, labels).numpy(), expected, atol=1e-5)


def test_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    logits, labels = example()
    for i in range(2):
        expected = functional.cross_entropy(logits[i : i + 1, :, 1:], labels[i : i + 1, 1:])
        torch.testing.assert_close(cross_entropy(logits, labels)[i], expected)


def test_focal_loss_against_the_formula() -> None:
    logits, labels = example()
    p = logits.softmax(1)
    for i in range(2):
        true = p[i, :, 1:].gather(0, labels[i, 1:][None])[0]
        expected = (-((1 - true) ** 2) * true.log()).mean()
        torch.testing.assert_close(focal_loss(logits, labels)[i], expected)
    torch.testing.assert_close(focal_loss(logits, labels, 0.0), cross_entropy(logits, labels))


@pytest.mark.parametrize("fill", [0, IGNORE])
@pytest.mark.parametrize("shape", [(8, 8), (4, 4, 4)])
def test_no_foreground_gives_a_finite_loss_and_gradient(fill: int, shape: tuple[int, ...]) -> None:
    logits = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    total, terms = segmentation_loss(logits, torch.full((2, *shape), fill), ALL)
    total.sum().backward()
    assert total.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (terms["dice"] == 0).all()
    if fill == IGNORE:
        assert (total == 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_sure_and_right_costs_nothing_sure_and_wrong_stays_finite(gamma: float) -> None:
    weights = replace(ALL, focal_gamma=gamma)
    labels = torch.ones((1, 4, 4), dtype=torch.int64)
    sure = 200.0 * functional.one_hot(labels, 3).movedim(-1, 1).float()
    for sign, low, high in ((1, 0.0, 1e-4), (-1, 1.0, 1e5)):
        logits = (sign * sure).requires_grad_()
        total = segmentation_loss(logits, labels, weights)[0]
        total.sum().backward()
        assert low <= float(total.detach()) <= high
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_ignored_pixels_pull_at_nothing() -> None:
    logits, labels = example(ignored=3)
    logits.requires_grad_()
    segmentation_loss(logits, labels, ALL)[0].sum().backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, :3] == 0).all()
    assert (logits.grad[:, :, 3:] != 0).any()


def test_the_sum_has_the_terms_that_weigh_something() -> None:
    logits, labels = example()
    total, terms = segmentation_loss(logits, labels, Losses(cross_entropy=0.0, dice=2.0, focal=3.0))
    assert set(terms) == {"dice", "focal"}
    torch.testing.assert_close(total, 2 * terms["dice"] + 3 * terms["focal"])


def test_images_count_alike_however_a_batch_is_parted() -> None:
    logits, labels = example()
    labels[0, :5] = IGNORE
    whole = segmentation_loss(logits, labels, ALL)[0].mean()
    parts = [segmentation_loss(logits[i : i + 1], labels[i : i + 1], ALL)[0] for i in range(2)]
    torch.testing.assert_close(whole, torch.cat(parts).mean())


def test_dice_scores_against_counting() -> None:
    truth = torch.tensor([[[0, 1, 1, 2], [0, 1, IGNORE, 2]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    guess = torch.tensor([[[0, 1, 0, 2], [0, 1, 1, 1]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    scores = dice_scores(guess, truth, 3)
    assert scores[0] == pytest.approx((2 * 2 / (3 + 3) + 2 * 1 / (1 + 2)) / 2)
    assert np.isnan(scores[1])


def test_masks_in_the_space_of_diffusion() -> None:
    _, labels = example()
    x_start = mask_to_x_start(labels, 3)
    assert set(x_start.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(x_start.argmax(1), labels.masked_fill(labels == IGNORE, 0))
    torch.testing.assert_close(logits_to_x_start(1000 * x_start), x_start)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_gradient_is_that_of_the_paper(gamma: float) -> None:
    """Lin et al. 2017, appendix B: with two classes, dFL/dx = y (1 - p)^g (g p log p + p - 1)."""
    x = torch.linspace(-3, 3, 9, dtype=torch.float64)
    for label, sign in ((1, 1.0), (0, -1.0)):
        logit = x.clone().requires_grad_()
        logits = torch.stack([torch.zeros_like(x), logit])[None, :, None]
        focal_loss(logits, torch.full((1, 1, 9), label), gamma).sum().backward()
        p = torch.sigmoid(sign * x)
        expected = sign * (1 - p) ** gamma * (gamma * p * p.log() + p - 1) / 9
        torch.testing.assert_close(logit.grad, expected)
