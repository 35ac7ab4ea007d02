"""The pool's loss: whom the teacher is trusted on, what the network sees, and that only its own weights learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from radiffuse.config import IGNORE, Augmentation, Losses, Pool
from radiffuse.core.losses import cross_entropy, dice_loss, one_hot, soft_loss
from radiffuse.data.augment import draw_change
from radiffuse.data.cutmix import boxes
from radiffuse.data.pool import PooledBatch
from radiffuse.objectives.consistency import (
    Consistency,
    FeatureDropout,
    expected_dice,
    plausible,
    still,
    trust,
)
from radiffuse.objectives.segmentation import NEARLY, CustomSegmentation, Segmentation
from radiffuse.train.random import StepRandom
from tiny_runs import shake, tiny

CPU = torch.device("cpu")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step(total: int, start: int = 0, stop: int | None = None) -> StepRandom:
    return StepRandom(0, 3, total=total, start=start, stop=stop or total, device=CPU)


def test_a_loss_against_certain_labels_is_the_usual_one() -> None:
    logits, labels = numbers(3, 4, 6, 5), numbers(3, 6, 5, seed=1).argsort(1) % 4
    target, all_count = one_hot(labels, 4), torch.ones(3, 6, 5)
    for losses, usual in (
        (Losses(cross_entropy=2.0), 2 * cross_entropy(logits, labels)),
        (Losses(cross_entropy=0.0, dice=1.0), dice_loss(logits, labels)),
    ):
        found = soft_loss(logits, target, all_count, losses)
        torch.testing.assert_close(found, usual, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("losses", [Losses(), Losses(cross_entropy=0.0, dice=1.0)])
def test_a_loss_against_probabilities_is_least_at_them(losses: Losses) -> None:
    true, counts = numbers(2, 3, 4, 4), torch.ones(2, 4, 4)
    counts[:, :2] = 0.25
    target = true.softmax(1)
    least = soft_loss(true, target, counts, losses)
    for seed in range(5):
        other = soft_loss(true + 0.3 * numbers(2, 3, 4, 4, seed=seed + 9), target, counts, losses)
        assert (other > least).all()
    nothing = soft_loss(true, target, torch.zeros(2, 4, 4), losses)
    assert not nothing.any()


def test_voxels_count_by_how_far_they_lie_below_the_mean_of_their_class() -> None:
    found = (3 * numbers(2, 3, 8, 7)).softmax(1)
    weight, by_threshold = trust(found, None), trust(found, 0.8)
    for image in range(2):
        p = found[image].numpy()
        sure, guess = p.max(0), p.argmax(0)
        dice = []
        for value in (1, 2):
            mask = guess == value
            dice.append(2 * p[value][mask].sum() / (p[value].sum() + mask.sum()))
        for value in range(3):
            mask = guess == value
            below = np.clip(sure[mask].mean() - sure[mask], 0, None)
            expected = np.exp(-2 * (below / sure[mask].std()) ** 2) * np.mean(dice) ** 4
            np.testing.assert_allclose(weight[image].numpy()[mask], expected, rtol=1e-3)
        np.testing.assert_array_equal(by_threshold[image].numpy(), sure >= 0.8)
    empty = torch.tensor([0.9, 0.1]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    mask = one_hot(empty.argmax(1), 2)
    assert float(expected_dice(empty, mask)) == pytest.approx(2 * 0.9 / 1.9)  # background alone


def test_a_film_whose_mask_could_be_no_labelled_ones_is_left_out() -> None:
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.8, 0.15, 0.05]])
    columns = [(7, 3, 0), (9, 1, 0), (10, 0, 0), (3, 7, 0), (6, 2, 2)]  # pixels of each class
    rows = [torch.arange(3).repeat_interleave(torch.tensor(column)) for column in columns]
    labels = torch.stack(rows)[:, None].expand(-1, 6, -1)
    verdict = plausible(one_hot(labels, 3), shares)
    assert verdict.tolist() == [
        1,
        1,
        0,
        0,
        0,
    ]  # .1 is half of .2; .7 more than twice .3; .2 than .05


@pytest.mark.parametrize("shape", [(40, 60), (20, 24, 16)])
def test_a_box_has_its_share_of_the_image(shape: tuple[int, ...]) -> None:
    images, n = torch.zeros(64, 1, *shape), len(shape)
    numbers = step(64).uniform((1 + n,))
    inside = boxes(images, numbers[:, 0], numbers[:, 1:])
    assert inside.shape == images.shape
    share = inside.flatten(1).float().mean(1)
    torch.testing.assert_close(share, 0.1 + 0.4 * numbers[:, 0], rtol=0.3, atol=0.02)
    for box in inside[:, 0]:
        places = box.nonzero()
        sides = places.amax(0) - places.amin(0) + 1
        assert int(sides.prod()) == len(places)  # one solid box


def pooled_batch(size: int, *, strength: float = 1.0) -> PooledBatch:
    changes = Augmentation(flip=(1,), rotate=20, brightness=0.3, noise=0.1)
    images, pool = (numbers(size, 1, 16, 16, seed=s).clamp(-1, 1) for s in (1, 2))
    labels = (images[:, 0] > 0).long()
    labels[:, :3] = IGNORE
    drawn = tuple(draw_change(changes, 2, np.random.default_rng(i)) for i in range(size))
    return PooledBatch(images, labels, ("a",) * size, pool, drawn, strength)


def task(**changes: object) -> tuple[Consistency, nn.Module]:
    network = tiny(2, 2)
    shake(network, 3)
    found = Consistency(Segmentation(network, Losses()), Pool(**changes), Losses(dice=1.0))  # type: ignore[arg-type]
    teacher = tiny(2, 2)
    shake(teacher, 4)

    def averaged(images: Tensor) -> Tensor:
        with torch.no_grad():
            return teacher(images)

    found.averaged = averaged
    return found, found.build().train()


def test_what_smaller_passes_give_is_what_the_task_says() -> None:
    """A loss of the user that is one number for all labelled images changes with the passes, beside a pool too."""
    own = CustomSegmentation(tiny(2, 2), lambda logits, labels: logits.mean())
    learning = Consistency(own, Pool(), Losses())
    batch = pooled_batch(2)
    learning.loss(learning.build(), batch, step(2))
    assert learning.in_passes == own.in_passes == NEARLY
    assert task()[0].in_passes == "the same result"


def test_smaller_passes_learn_the_same() -> None:
    def gradient(size: int) -> list[Tensor]:
        learning, network = task()
        batch = pooled_batch(4)
        for start in range(0, 4, size):
            part = batch.part(start, start + size)
            assert learning.losses_of(part) == (learning.loss, learning.pool_loss)
            loss = learning.pool_loss(network, part, step(4, start, start + size))
            (loss.value * size / 4).backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    whole, parts = gradient(4), gradient(1)
    assert any(g.abs().max() > 1e-4 for g in whole)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_the_pools_weight_and_the_ramp_scale_its_loss() -> None:
    learning, network = task(weight=1.0)
    half, _ = task(weight=0.5)
    half.averaged = learning.averaged
    full = learning.pool_loss(network, pooled_batch(2), step(2))
    less = half.pool_loss(network, pooled_batch(2, strength=0.5), step(2))
    assert float(less.value.detach()) == pytest.approx(float(full.value.detach()) / 4, rel=1e-5)


def test_a_pasted_box_brings_its_label_and_what_it_ignores() -> None:
    learning, network = task(cutmix=1.0, dropout=0.0, threshold=0.0)
    seen: list[Tensor] = []
    batch = pooled_batch(3)
    learning.averaged = lambda images: torch.zeros(len(images), 2, *images.shape[2:])
    changed, _, _ = learning.taught(batch, step(3))

    def look(images: Tensor) -> Tensor:
        seen.append(images)
        return network(images)

    module = nn.Module()
    module.forward = look  # type: ignore[method-assign]
    counted = learning.pool_loss(module, batch, step(3)).terms["pool_trust"]
    pasted = (seen[0] == batch.images) & (seen[0] != changed)
    share = pasted.flatten(1).float().mean(1)
    assert ((share > 0.05) & (share < 0.55)).all()
    ignored = pasted[:, 0, :3].sum() / pasted[:, 0].numel()
    assert counted == pytest.approx(1 - float(ignored), abs=0.02)


def test_features_are_dropped_in_the_pools_pass_alone() -> None:
    hook = FeatureDropout()
    module = nn.Identity()
    features = torch.ones(64, 200, 3, 3)
    assert hook(module, None, features) is features
    hook.draw(0.75, torch.arange(64) < 32, step(64))
    found = hook(module, None, features)
    assert torch.equal(found[32:], features[32:])
    assert set(found[:32].unique().tolist()) == {0.0, 4.0}
    assert float(found[:32].mean()) == pytest.approx(1, abs=0.1)
    assert (found.amax((2, 3)) == found.amin((2, 3))).all()  # whole channels
    assert torch.equal(hook(module, None, features), found)  # the same when the pass is repeated
    assert hook(module.eval(), None, features) is features
    learning, network = task()
    learning.pool_loss(network, pooled_batch(2), step(2))
    batch = pooled_batch(2)
    losses = [float(learning.loss(network, batch, step(2)).value.detach()) for _ in range(2)]
    plain = float(learning.task.loss(network, batch, step(2)).value.detach())
    assert losses == [plain, plain]


def test_the_pool_moves_no_statistics_of_batch_normalization() -> None:
    layer = nn.BatchNorm2d(3)
    layer.running_mean += 5  # type: ignore[operator]
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    with still(nn.Sequential(layer)):
        found = layer(torch.zeros(2, 3, 4, 4))
    assert float(found.detach().mean()) == pytest.approx(-5, abs=1e-3)  # not its own mean
    assert layer.training
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_pass_that_memory_ran_out_in_leaves_batch_normalization_learning() -> None:
    layer = nn.BatchNorm2d(3)
    with pytest.raises(MemoryError), still(nn.Sequential(layer)):
        raise MemoryError
    assert layer.training
