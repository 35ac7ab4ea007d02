"""What is given stands, what is left open is filled: by a plan, and as a resumed run has it."""

from __future__ import annotations

from dataclasses import replace

from radiffuse.config import (
    FIT,
    PRETRAIN,
    Augmentation,
    Contrast,
    Machine,
    Network,
    PlanSettings,
    Pretrain,
    Training,
    TrainingPlan,
)
from radiffuse.config.values import plain
from radiffuse.data.plan import Plan
from radiffuse.train.open_settings import fill, fill_as_before

OURS = TrainingPlan(
    network=Network(width=24, blocks=1, dropout=0.0),
    batch_size=8,
    micro_batch=4,
    steps=700,
    precision="bf16-mixed",
    checkpoint_activations=True,
    compile=False,
    minutes=3.0,
    memory_gib=1.0,
)
PLAN = Plan(2, ("image",), ("air", "lung"), (64, 48), grid=(128, 96), training=OURS, shift=2.0)


def test_a_plan_decides_what_is_open() -> None:
    settings = replace(
        FIT["scratch"],
        network=Network(dropout=0.3),
        training=Training(steps=None, batch_size=None),
        plan=PlanSettings(ceiling=(0.9,), crop="body"),
    )
    found = fill(settings, PLAN)
    training, machine = found.training, found.machine
    assert (training.steps, training.batch_size, training.micro_batch) == (700, 8, 4)
    assert (machine.precision, machine.compile) == ("bf16-mixed", False)
    assert machine.checkpoint_activations is True
    assert found.plan == PlanSettings(size=(64, 48), grid=(128, 96), crop="body")
    assert found.network == Network(width=24, blocks=1, dropout=0.3)


def test_what_is_given_stands() -> None:
    settings = replace(
        FIT["scratch"],
        network=Network(preset="tiny"),
        training=Training(steps=5, batch_size=2, micro_batch=1),
        machine=Machine(precision="32-true", compile=True, checkpoint_activations=False),
        plan=PlanSettings(size=(32, 32), grid=(40, 40)),
    )
    assert fill(settings, PLAN) == settings


def test_the_shift_of_noise_is_of_pretraining_and_open_where_it_is_none() -> None:
    for given, found in ((None, 2.0), (1.5, 1.5)):
        settings = Pretrain()
        settings = replace(settings, diffusion=replace(settings.diffusion, shift=given))
        assert fill(settings, PLAN).diffusion.shift == found


def test_pretraining_mirrors_left_and_right_of_films_and_of_volumes() -> None:
    """The columns of a film, but the first axis of a volume, whose second one goes from back to front."""
    volumes = Plan(3, ("ct",), (), (16, 16, 16), spacing=(1.0, 1.0, 1.0))
    assert fill(Pretrain(), PLAN).augmentation.flip == (1,)
    assert fill(Pretrain(), volumes).augmentation.flip == (0,)
    for flip in ((), (1,)):
        given = replace(Pretrain(), augmentation=Augmentation(flip=flip))
        assert fill(given, volumes).augmentation.flip == flip
    assert fill(FIT["scratch"], PLAN).augmentation.flip is None  # by the plan's own rule


def test_shading_left_open_is_decided_where_images_have_ranges_of_their_own() -> None:
    base = replace(FIT["scratch"], augmentation=Augmentation(shading=None))
    for intensity, most in (("percentiles", 0.8), ("window", 0.0)):
        plan = replace(PLAN, intensity=intensity)
        found = fill(replace(base, unlabelled=("films",)), plan)
        assert found.augmentation.shading == found.pool.strong.shading == most
        assert fill(base, plan).pool == base.pool  # takes no effect without a pool
        strong = replace(base.pool.strong, shading=0.3)
        given = replace(base, unlabelled=("films",), pool=replace(base.pool, strong=strong))
        assert fill(given, plan).pool == given.pool
        crops = replace(
            PRETRAIN["contrastive"], contrast=Contrast(views=Augmentation(shading=None))
        )
        assert fill(crops, plan).contrast.views.shading == most
        assert fill(replace(crops, objective="ddpm"), plan).contrast == crops.contrast
    assert fill(PRETRAIN["contrastive"], PLAN).contrast == Contrast()  # 0, unless it is asked for


def test_all_at_once_is_no_micro_batch_and_a_plan_may_say_nothing_of_the_training() -> None:
    settings = replace(FIT["scratch"], training=Training(steps=None, batch_size=None))
    whole = replace(PLAN, training=replace(OURS, micro_batch=8))
    assert fill(settings, whole).training.micro_batch is None
    silent = fill(settings, replace(PLAN, training=None))
    assert (silent.training.steps, silent.training.batch_size) == (300, 8)
    assert silent.plan == settings.plan


def test_a_resumed_run_takes_what_was_decided_unless_it_is_given_now() -> None:
    settings = plain(replace(FIT["scratch"], training=Training(steps=None, batch_size=4)))
    before = {
        "settings": {"training": {"steps": 700, "batch_size": 8}, "plan": {"size": [64, 48]}},
        "decided": ["training.steps", "training.batch_size", "plan.size"],
    }
    found, names = fill_as_before(settings, before)
    assert names == ["training.steps", "plan.size"]
    assert (found["training"]["steps"], found["training"]["batch_size"]) == (700, 4)
    assert found["plan"]["size"] == [64, 48]
