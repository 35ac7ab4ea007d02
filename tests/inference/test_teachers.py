"""Others that label the pool: mask diffusion repairs masks, a finished run teaches; neither may know the answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import radiffuse
from conftest import TINY
from radiffuse.commands import fit as commands
from radiffuse.config import Diffusion, Fit, Machine, Pool
from radiffuse.config.values import from_dict
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.inference import teachers
from radiffuse.inference.teachers import SAMPLES, Corrector, teachers_to_time
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.objectives import method_of, trial_of
from radiffuse.release.program import one_pass_network
from radiffuse.train.planning.measuring import Blank
from radiffuse.train.random import StepRandom
from radiffuse.train.run import Run
from tiny_runs import chosen_run, shake, tiny, volume_plan

CPU = Machine(accelerator="cpu", precision="32-true")


class Likeliest(nn.Module):
    """Takes the noised mask at its word: the class of the largest value is certain."""

    def forward(self, images: Tensor, x_t: Tensor, t: Tensor, guess: Tensor) -> Tensor:
        return 1e6 * x_t


def step(total: int, start: int = 0, stop: int | None = None) -> StepRandom:
    device = torch.device("cpu")
    return StepRandom(0, 1, total=total, start=start, stop=stop or total, device=device)


def corrector(timesteps: int) -> Corrector:
    process = Diffusion(schedule="linear", num_train_timesteps=timesteps, prediction_type="x_start")
    return Corrector(Likeliest(), process)  # type: ignore[arg-type]


def test_what_the_drawn_masks_agree_on_counts() -> None:
    images, found = torch.zeros(3, 1, 6, 5), torch.full((3, 2, 6, 5), 0.5)
    mean, agreement = corrector(1000)(images, found, step(3))
    votes = SAMPLES * mean[:, 0]
    torch.testing.assert_close(votes, votes.round())
    assert {int(v) for v in votes.round().unique()} == set(range(SAMPLES + 1))  # by chance alone
    torch.testing.assert_close(agreement, 1 - 4 * mean[:, 0] * mean[:, 1], rtol=1e-4, atol=1e-5)
    certain = torch.zeros(3, 2, 6, 5)
    certain[:, 1, :3], certain[:, 0, 3:] = 1, 1
    kept, agreement = corrector(2)(images, certain, step(3))  # noised to the first timestep: hardly
    torch.testing.assert_close(kept, certain)
    torch.testing.assert_close(agreement, torch.ones(3, 6, 5))


def test_in_the_first_steps_a_teacher_sees_volumes_at_half_the_resolution() -> None:
    seen = []

    def segment(images: Tensor, generator: torch.Generator) -> list[Tensor]:
        seen.append(images.shape[2:])
        return [images.expand(-1, 2, -1, -1, -1)]

    member: Any = SimpleNamespace(plan=volume_plan(), weight=1.0, segment=segment)
    label = teachers._together([member])
    for side in (8, 4):
        torch.testing.assert_close(
            label(torch.zeros(1, 1, side, side, side))[0, 0, 0, 0, 0], torch.tensor(0.5)
        )
    assert seen == [(8, 8, 8), (4, 4, 4)]


def test_a_correction_is_the_same_in_smaller_passes() -> None:
    images = torch.linspace(-1, 1, 4 * 64).reshape(4, 1, 8, 8)
    found = torch.cat([images, -images], 1).softmax(1)
    unet = tiny(2, 2).unet
    network = MaskDenoiser.from_denoiser(
        unet, classes=2, generator=torch.Generator().manual_seed(0)
    )
    shake(network, 2)
    repair = Corrector(network, Diffusion(num_train_timesteps=50, prediction_type="x_start"))
    whole = repair(images, found, step(4))
    parts = [repair(images[i : i + 2], found[i : i + 2], step(4, i, i + 2)) for i in (0, 2)]
    for one, halves in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(halves), one, rtol=1e-4, atol=1e-5)
    assert not torch.equal(whole[0][0], whole[0][1])


def test_a_finished_run_teaches_unless_it_knows_what_is_held_out(
    films: Path, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("score_validation", "leave_documents"):
        monkeypatch.setattr(commands, name, lambda *_: None)
    training = {"steps": 2, "batch_size": 2, "log_every": 1, "validate_every": 0}

    def fit(out: str, seed: int = 0, size: int = 32, **changes: Any) -> Any:
        return radiffuse.fit(
            data=films,
            out=tmp_path / out,
            method="scratch",
            network=TINY,
            plan={"size": (size, size)},
            split={"test": 0.4, "validation": 0.2, "seed": seed},
            training=training,
            reader={"cache": str(tmp_path / "cache")},
            machine={"accelerator": "cpu", "precision": "32-true"},
            **changes,
        )

    teacher = fit("teacher").folder
    pool = {"unlabelled": (str(unlabelled),)}
    run = fit("student", pool={"teacher": str(teacher), "start": 0.0}, **pool)
    rows = [row for row in run.log() if "loss" in row]
    assert all("pool" in row for row in rows)
    own = fit("alone", pool={"start": 0.0}, **pool)
    assert rows[0]["pool"] != next(row for row in own.log() if "loss" in row)["pool"]
    # What a plan counts on is timed with the teacher, too, where it sees images as the plan does.
    given = from_dict(Fit, run.config["settings"])
    timed = teachers_to_time(given, run.plan)
    assert timed.label is not None
    images = torch.zeros(2, 1, 32, 32)
    found = timed.label(images)
    assert found.shape == (2, len(run.plan.classes), 32, 32)
    blank = Blank.like(run.plan, (32, 32), labelled=True)
    task, _ = trial_of(method_of(given).build, None)(blank, given)
    torch.testing.assert_close(task.teachers.label(images), found)
    assert teachers_to_time(given, replace(run.plan, size=(16, 16))).label is None
    models = list(json.loads((run.folder / "cases.json").read_text())["teachers"])
    assert len(models) == 1
    assert models[0].startswith(f"{teacher} (")
    with pytest.raises(InputError, match=r'pool={"corrector": ".*teacher"}: is no mask diffusion'):
        fit("corrected", pool={"corrector": str(teacher)}, **pool)
    with pytest.raises(
        InputError, match=r'pool={"teacher": ".*"}: learned from bite.*, which this run'
    ):
        fit("leaking", seed=1, pool={"teacher": str(teacher)}, **pool)
    with pytest.raises(InputError, match=r"has size 32, 32 in its plan, this run has 16, 16"):
        fit("other", size=16, pool={"teacher": str(teacher)}, **pool)


def test_a_teacher_of_two_grids_sees_whole_films_on_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = Plan(2, ("image",), ("background", "a", "b"), (16, 16))
    coarse, patches = replace(fine, size=(8, 8)), replace(fine, size=(8, 8), grid=(16, 16))
    monkeypatch.setattr(teachers, "refuse_knowing", lambda *_: None)

    def found(*plans: Plan) -> Any:
        run = Run.open(chosen_run(tmp_path / str(len(list(tmp_path.iterdir()))), *plans))
        given = Fit(pool=Pool(teacher=str(run.folder)), machine=CPU)
        labelled: Any = SimpleNamespace(plan=fine, dataset=None, splits=None)
        timed = teachers.teachers_to_time(given, fine).label
        try:
            label = teachers.find_teachers(Run(tmp_path / "student"), given, labelled).label
        finally:
            assert (timed is None) == (coarse in plans[:1] or patches in plans)
        return run, label

    volume = replace(volume_plan(), resize="fit")  # as plans of volumes are read
    of_volumes = Fit(
        pool=Pool(teacher=str(chosen_run(tmp_path / "volumes", volume, volume))), machine=CPU
    )
    label = teachers.teachers_to_time(of_volumes, volume).label
    assert label is not None
    assert label(torch.zeros(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)
    run, label = found(fine, coarse)
    images = torch.rand((2, 1, 16, 16)) * 2 - 1
    torch.testing.assert_close(label(images), one_pass_network(run)(images).softmax(1))
    for plans in ((coarse, fine), (fine, patches)):
        with pytest.raises(InputError, match="has size 8, 8 in its plan, this run has 16, 16"):
            found(*plans)
