"""Several samples and several runs: mean, vote, maps of uncertainty, agreement."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor

import radiffuse
from conftest import SIZE
from radiffuse.config import Machine, Network, Sampling, resolve_network
from radiffuse.data.plan import Plan
from radiffuse.data.readers import read_scan
from radiffuse.data.scan import Scan
from radiffuse.errors import InputError
from radiffuse.inference.members import Member, Overrides
from radiffuse.inference.predictor import Predictor
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.nets.registry import save_network
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.system.files import write_atomic
from radiffuse.train.run import Run
from radiffuse.train.start_run import start_run
from tiny_runs import finished_run

CLASSES = ("background", "a", "b")
FILM = Plan(2, ("image",), CLASSES, (16, 16))
VOLUME = Plan(3, ("CT",), CLASSES, (8, 8, 8), (1.0, 1.0, 1.0), intensity="window", low=-1, high=1)
MACHINE = {"accelerator": "cpu", "precision": "32-true"}


def sure_of(value: int, plan: Plan = FILM, certainty: float = 1.0, name: str = "toy") -> Member:
    """A member that always says the same class with the given probability, the others alike."""
    share = torch.full((len(plan.classes),), (1 - certainty) / (len(plan.classes) - 1))
    share[value] = certainty
    logits = share.clamp(min=1e-30).log()

    def segment(images: Tensor, generator: torch.Generator, every_step: bool = False) -> Tensor:
        shape = (1, len(images), len(logits), *images.shape[2:])
        return logits.reshape(1, 1, -1, *[1] * (images.ndim - 2)).expand(shape)

    return Member(name, segment, plan)


def noisy(plan: Plan = FILM) -> Member:
    """A member whose every sample is another."""

    def segment(images: Tensor, generator: torch.Generator, every_step: bool = False) -> Tensor:
        shape = (1, len(images), len(plan.classes), *images.shape[2:])
        return 3 * torch.randn(shape, generator=generator)

    return Member("noisy", segment, plan, draws=True)


def predictor(*members: Member, **options: object) -> Predictor:
    return Predictor(members, torch.device("cpu"), contextlib.nullcontext, **options)  # type: ignore[arg-type]


def film() -> Scan:
    return Scan(np.random.default_rng(0).random((1, 20, 24)).astype(np.float32))


def test_probabilities_are_averaged_and_votes_are_counted() -> None:
    members = [sure_of(1, certainty=0.98), sure_of(2, certainty=0.6), sure_of(2, certainty=0.6)]
    mean, vote = predictor(*members), predictor(*members, ensemble="vote")
    assert (mean(film()).mask == 1).all()
    np.testing.assert_allclose(mean(film()).confidence, (0.98 + 0.2 + 0.2) / 3, atol=1e-5)
    assert (vote(film()).mask == 2).all()
    np.testing.assert_allclose(vote(film()).confidence, 2 / 3, atol=1e-5)


def test_every_run_weighs_the_same_however_many_samples_it_draws() -> None:
    drawing = dataclasses.replace(sure_of(1, certainty=0.6), draws=True)
    found = predictor(drawing, sure_of(2, certainty=0.9), samples=7)(film())
    assert (found.mask == 2).all()
    np.testing.assert_allclose(found.confidence, (0.9 + 0.2) / 2, atol=1e-5)


def test_maps_of_agreement_and_of_disagreement() -> None:
    agreed = predictor(sure_of(1), sure_of(1), uncertainty=True)(film()).maps
    assert set(agreed) == {"mean-a", "mean-b", "entropy", "variance"}
    np.testing.assert_allclose(agreed["mean-a"], 1, atol=1e-5)
    np.testing.assert_allclose(agreed["entropy"], 0, atol=1e-5)
    np.testing.assert_allclose(agreed["variance"], 0, atol=1e-6)
    split = predictor(sure_of(1), sure_of(2), uncertainty=True)(film()).maps
    np.testing.assert_allclose(split["mean-a"], 0.5, atol=1e-5)
    np.testing.assert_allclose(split["entropy"], np.log(2) / np.log(3), atol=1e-5)
    np.testing.assert_allclose(split["variance"], (0.25 + 0.25) / 3, atol=1e-5)
    unsure = predictor(sure_of(1, certainty=1 / 3), uncertainty=True)(film()).maps
    np.testing.assert_allclose(unsure["entropy"], 1, atol=1e-5)
    assert "variance" not in unsure  # one mask has none
    assert all(values.shape == (20, 24) for values in split.values())


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (("left lung", "b"), ["mean-left-lung", "mean-b"]),
        (("tumor/cyst", 'a: "b"?'), ["mean-tumor__cyst", "mean-a_-_b__"]),
    ],
)
def test_maps_of_classes_have_names_that_files_can_have(
    classes: tuple[str, ...], names: list[str]
) -> None:
    plan = dataclasses.replace(FILM, classes=("background", *classes))
    maps = predictor(sure_of(1, plan), uncertainty=True)(film()).maps
    assert list(maps) == [*names, "entropy"]
    np.testing.assert_allclose(maps[names[0]], 1, atol=1e-5)
    np.testing.assert_allclose(maps[names[1]], 0, atol=1e-5)


def test_classes_that_would_share_a_map_have_one_each() -> None:
    plan = dataclasses.replace(FILM, classes=("background", "left lung", "left-lung"))
    maps = predictor(sure_of(1, plan), uncertainty=True)(film()).maps
    assert [float(maps[name].mean().round(3)) for name in maps] == [1, 0, 0]
    assert all(name.startswith("mean-left-lung-") for name in list(maps)[:2])


@pytest.mark.parametrize("plan", [FILM, VOLUME])
def test_maps_are_those_of_the_samples(plan: Plan) -> None:
    """Against numbers computed from the samples one by one; windows do not overlap here."""
    shape = (1, *plan.size)
    scan = Scan(np.zeros(shape, np.float32), None if plan is FILM else (1.0,) * 3, None)
    whole = predictor(noisy(plan), samples=6, uncertainty=True, seed=3)
    found = whole(scan, "case")
    singles = []
    for sample in range(6):
        generator = whole._generator("case", 0, sample)
        singles.append(noisy(plan).segment(torch.zeros((1, *shape)), generator)[0, 0].softmax(0))
    p = torch.stack(singles).double()
    mean = p.mean(0)
    entropy = -(mean * mean.log()).sum(0) / np.log(3)
    for name, expected in (
        ("mean-b", mean[2]),
        ("entropy", entropy),
        ("variance", p.var(0, correction=0).mean(0)),
    ):
        np.testing.assert_allclose(found.maps[name], expected.numpy(), atol=1e-5)
    assert np.array_equal(found.mask, mean.argmax(0).numpy())


def test_noise_is_named_by_seed_and_scan_alone() -> None:
    one = predictor(noisy(), samples=2, seed=1)
    first = one(film(), "a").mask
    one(film(), "b")
    assert np.array_equal(one(film(), "a").mask, first)
    assert not np.array_equal(one(film(), "b").mask, first)
    assert not np.array_equal(predictor(noisy(), samples=2, seed=2)(film(), "a").mask, first)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"classes": ("background", "a", "c")}, "classes background, a, c"),
        ({"channels": ("image", "other")}, "channels image, other"),
    ],
)
def test_runs_that_disagree_are_refused(changes: dict[str, object], word: str) -> None:
    other = dataclasses.replace(FILM, **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"second: has {word}.*first has"):
        predictor(sure_of(1, name="first"), sure_of(1, other, name="second"))


def test_runs_may_see_a_scan_on_different_grids() -> None:
    """What one says of a corner counts there alone, whatever the grid of the other."""
    coarse = dataclasses.replace(FILM, size=(8, 8), low=5.0)
    for ensemble in ("probability", "vote"):
        mixed = predictor(
            sure_of(1, certainty=0.8), sure_of(1, coarse, 0.6), ensemble=ensemble, uncertainty=True
        )
        found = mixed(film())
        assert (found.mask == 1).all()
        wanted = 1.0 if ensemble == "vote" else 0.7
        np.testing.assert_allclose(found.confidence, wanted, atol=1e-5)
        np.testing.assert_allclose(mixed.probabilities(film())[1], wanted, atol=1e-5)
        spread = 0.0 if ensemble == "vote" else (0.1**2 + 2 * 0.05**2) / 3
        np.testing.assert_allclose(found.maps["variance"], spread, atol=1e-6)


def test_what_the_user_asks_for_goes_before_what_the_run_was_trained_for() -> None:
    own = Sampling(sampler="ddpm", steps=5)
    assert Overrides().apply(own) == own
    assert Overrides("ddim", 3).apply(own) == Sampling(sampler="ddim", steps=3)
    assert Overrides(legacy_timesteps=True).apply(own).legacy_timesteps


# -------------------------------------------------------------------------------------------------- on files


def saved(folder: Path, plan: Plan, kind: str) -> Path:
    """A run of mask diffusion or of plain segmentation, without any training."""
    unet = resolve_network(
        Network(width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8),
        spatial_dims=plan.spatial_dims,
        in_channels=1,
        out_channels=len(plan.classes),
    )
    generator = torch.Generator().manual_seed(1)
    cls = MaskDenoiser if kind == "diffusion" else SegmentingUNet
    settings: dict[str, object] = {
        "method": "diffusion",
        "diffusion": {
            "process": {"schedule": "linear", "num_train_timesteps": 1001,
                        "prediction_type": "x_start"},
            "sampling": {"sampler": "ddpm", "steps": 2},
        },
    }  # fmt: skip
    with start_run(folder, "fit", settings if kind == "diffusion" else {}) as run:
        write_atomic(folder / "plan.json", plan.to_json())
        save_network(cls.from_scratch(unet, generator=generator), run.model)  # type: ignore[attr-defined]
    return folder


def test_an_ensemble_of_any_runs_writes_masks_and_maps(films: Path, tmp_path: Path) -> None:
    plan = Plan(2, ("image",), CLASSES, SIZE)
    runs = (saved(tmp_path / "one", plan, "diffusion"), saved(tmp_path / "two", plan, "plain"))
    out = radiffuse.predict(
        runs=runs, data=films / "images", out=tmp_path / "masks", machine=MACHINE,
        samples=2, steps=3, uncertainty=True,
    )  # fmt: skip
    names = {path.name for path in out.iterdir()}
    case = "bitewing-000000"
    kinds = ("mean-a", "mean-b", "entropy", "variance")
    assert {f"{case}.png", *(f"{case}-{kind}.tif" for kind in kinds)} <= names
    image = read_scan(films / "images" / f"{case}.png")
    for kind in kinds:
        values = read_scan(out / f"{case}-{kind}.tif")
        assert values.spatial_shape == image.spatial_shape
        assert float(values.array.min()) >= -1e-6
        assert float(values.array.max()) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("kind", "given", "why"),
    [
        ("plain", {"head": "linear"}, "no run has several heads"),
        ("plain", {"sampler": "ddim"}, "no run draws its masks"),
        ("plain", {"steps": 3}, "no run draws its masks"),
        ("plain", {"legacy_timesteps": True}, "no run draws its masks"),
        ("plain", {"samples": 2}, "no run draws its masks"),
        ("plain", {"seed": 1}, "no run draws its masks"),
        ("plain", {"overlap": 0.2}, "the network sees every image whole"),
        ("plain", {"ensemble": "vote"}, "a single mask votes"),
        ("diffusion", {"ensemble": "vote"}, "a single mask votes"),
        ("diffusion", {"head": "linear"}, "no run has several heads"),
    ],
)
def test_a_setting_that_no_run_obeys_is_refused(
    tmp_path: Path, kind: str, given: dict[str, object], why: str
) -> None:
    run = saved(tmp_path / "run", Plan(2, ("image",), CLASSES, SIZE), kind)
    with pytest.raises(InputError, match=f"^{min(given)}: takes no effect, since {why}"):
        radiffuse.predict(runs=run, data=tmp_path, out=tmp_path / "x", machine=MACHINE, **given)
    if "legacy_timesteps" not in given:
        with pytest.raises(InputError, match=why):
            radiffuse.Segmenter.load(run, device="cpu", precision="32-true", **given)
    assert not (tmp_path / "x").exists()


def test_one_run_that_obeys_is_enough(tmp_path: Path) -> None:
    plan = Plan(2, ("image",), CLASSES, SIZE)
    runs = [Run.open(saved(tmp_path / kind, plan, kind)) for kind in ("plain", "diffusion")]
    options = {"samples": 2, "ensemble": "vote", "seed": 3}
    machine = Machine(accelerator="cpu", precision="32-true")
    Predictor.open(runs, machine, Overrides("ddim", 3, True), **options)
    volumes = Run.open(saved(tmp_path / "volumes", VOLUME, "plain"))
    assert Predictor.open([volumes], machine, overlap=0.2).overlap == 0.2


def test_windows_of_a_film_that_is_enlarged_overlap_as_they_are_told(tmp_path: Path) -> None:
    """A network that sees films whole sees one that ``--tta scale`` enlarges in windows."""
    run = Run.open(finished_run(tmp_path / "run", Plan(2, ("image",), CLASSES, SIZE), seed=3))
    machine = Machine(accelerator="cpu", precision="32-true")
    image = np.random.default_rng(0).random((1, *SIZE), np.float32)
    by = [
        Predictor.open([run], machine, overlap=overlap, tta=("scale",)).on_plan(Scan(image))
        for overlap in (0.5, 0.9)
    ]
    assert not np.allclose(by[0], by[1], atol=1e-4)
    with pytest.raises(InputError, match="--overlap: takes no effect, .* overlap by .75"):
        Predictor.open([run], machine, overlap=0.2, tta=("scale",))


def test_volumes_are_sampled_window_by_window_on_their_own_grid(tmp_path: Path) -> None:
    data = tmp_path / "ct"
    data.mkdir()
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (5, 6, 7)
    values = np.random.default_rng(0).integers(-1, 2, (11, 9, 13)).astype(np.int16)
    nibabel.Nifti1Image(values, affine).to_filename(data / "a.nii.gz")
    run = saved(tmp_path / "run", VOLUME, "diffusion")
    for out in ("one", "two"):
        radiffuse.predict(
            runs=run, data=data, out=tmp_path / out, machine=MACHINE, uncertainty=True, samples=2
        )
    first, second = ((tmp_path / out / "a.nii.gz").read_bytes() for out in ("one", "two"))
    assert first == second
    for name in ("a", "a-entropy", "a-variance", "a-mean-b"):
        found = nibabel.load(tmp_path / "one" / f"{name}.nii.gz")
        assert found.shape == values.shape
        np.testing.assert_allclose(found.affine, affine, atol=1e-6)


def test_every_step_ends_with_the_result(films: Path, tmp_path: Path) -> None:
    plan = Plan(2, ("image",), CLASSES, SIZE)
    run = Run.open(saved(tmp_path / "one", plan, "diffusion"))
    found = Predictor.open([run], Machine(accelerator="cpu", precision="32-true"))
    scan = read_scan(films / "images" / "bitewing-000000.png")
    steps = found.every_step(scan, "x")
    assert found.timesteps == (1000, 0)
    assert len(steps) == 2
    result = found(scan, "x")
    assert np.array_equal(steps[-1].mask, result.mask)
    np.testing.assert_array_equal(steps[-1].confidence, result.confidence)
