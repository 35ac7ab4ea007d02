"""Features without noise: what is compared with what, what learns, and what starts from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import radiffuse
from conftest import TINY, line_of, pretrain_settings
from radiffuse.config import Diffusion, Network, resolve_network
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.data.batches import Batch
from radiffuse.errors import InputError
from radiffuse.nets.guided import GuidedUNet
from radiffuse.nets.registry import load_network
from radiffuse.nets.student import FeatureStudent, Projections, feature_distance
from radiffuse.nets.unet import UNet
from radiffuse.objectives.clean_features import CleanFeatureLearning
from radiffuse.train.random import StepRandom
from radiffuse.train.run import Run
from radiffuse.train.start import load_denoiser

DIFFUSION = Diffusion(num_train_timesteps=300)
TIMESTEPS = (3, 30, 90)


def denoiser(dims: int, seed: int = 5) -> UNet:
    config = resolve_network(
        Network(**TINY),  # type: ignore[arg-type]
        spatial_dims=dims,
        in_channels=1,
        out_channels=1,
    )
    network, generator = UNet(config), torch.Generator().manual_seed(seed)
    network.initialize(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def images(dims: int, count: int = 4) -> Tensor:
    return torch.rand((count, 1, *(8,) * dims), generator=torch.Generator().manual_seed(0)) * 2 - 1


def task_of(dims: int) -> CleanFeatureLearning:
    student = FeatureStudent(denoiser(dims), len(TIMESTEPS))
    student.initialize(torch.Generator().manual_seed(1))
    return CleanFeatureLearning(student, denoiser(dims), DIFFUSION, TIMESTEPS, images(dims))


def random(total: int, start: int = 0, stop: int | None = None) -> StepRandom:
    return StepRandom(
        0, 1, total=total, start=start, stop=stop or total, device=torch.device("cpu")
    )


def test_the_distance_by_hand() -> None:
    """Two voxels at right angles and along each other, and two opposed: 1 - cosine is 1, 0, and 2, 2."""
    first = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    other = torch.tensor([[[0.0, 3.0], [5.0, 0.0]]])
    assert feature_distance([first], [other]).tolist() == pytest.approx([0.5])
    assert feature_distance([first, first], [other, -7 * first]).tolist() == pytest.approx([1.25])


def test_each_image_has_the_projection_of_its_timestep() -> None:
    projections, generator = Projections(4, 3), torch.Generator().manual_seed(0)
    projections.initialize(generator)
    x, which = torch.randn((5, 4, 3, 2), generator=generator), torch.tensor([2, 0, 1, 2, 2])
    assert torch.equal(projections(x, which), x)  # at its start
    with torch.no_grad():
        for weight in projections.parameters():
            weight.normal_(generator=generator)
    found = projections(x, which)
    for image, k, result in zip(x, which.tolist(), found, strict=True):
        voxel = image[:, 1, 1]
        hidden = torch.nn.functional.silu(projections.first[k] @ voxel + projections.bias[k])
        wanted = voxel + projections.second[k] @ hidden + projections.offset[k]
        torch.testing.assert_close(result[:, 1, 1], wanted)


@pytest.mark.parametrize("dims", [2, 3])
def test_at_its_start_it_is_as_far_as_clean_features_are_from_noised_ones(dims: int) -> None:
    task, x, generator = task_of(dims), images(dims), torch.Generator().manual_seed(2)
    which, noise = torch.tensor([0, 1, 2, 2]), torch.randn(x.shape, generator=generator)
    with torch.no_grad():
        found = task.distance(task.build(), x, which, noise)
    network, process = denoiser(dims), GaussianDiffusion(DIFFUSION)
    for i, t in enumerate((3, 30, 90, 90)):
        keep, at = process.alphas_cumprod[t].sqrt(), torch.tensor([t])
        x_t = keep * x[i : i + 1] + (1 - keep**2).sqrt() * noise[i : i + 1]
        taps = ("middle", "level.1", "level.0")
        with torch.no_grad():
            clean, noised = (
                network.features(x[i : i + 1], 0 * at, taps),
                network.features(x_t, at, taps),
            )
        angles = [
            1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
            for a, b in ((clean[tap], noised[tap]) for tap in taps)
        ]
        assert float(found[i]) == pytest.approx(sum(float(a.mean()) for a in angles) / 3, rel=1e-4)
    assert float(found[1]) < float(found[2])  # more noise, farther


@pytest.mark.parametrize("dims", [2, 3])
def test_the_student_learns_the_features_of_another_network_which_does_not(dims: int) -> None:
    """Where there is hardly any noise, all of the distance can be learned."""
    student = FeatureStudent(denoiser(dims), 2)
    student.initialize(torch.Generator().manual_seed(1))
    teacher, batch = denoiser(dims, seed=6), Batch(images(dims), None, ("x",) * 4)
    task = CleanFeatureLearning(student, teacher, DIFFUSION, (0, 1), batch.images)
    network, device = task.build().eval(), torch.device("cpu")
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    with torch.no_grad():
        start = task.validate(network, device)["loss"]
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, 3e-3)
    for step in range(30):
        draws = StepRandom(0, step, total=4, start=0, stop=4, device=device)
        optimizer.zero_grad()
        task.loss(network, batch, draws).value.backward()
        # Every weight that is to learn does, else several processes would wait for it.
        assert all(p.grad is not None for p in learning)
        optimizer.step()
    with torch.no_grad():
        assert task.validate(network, device)["loss"] < 0.5 * start
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_micro_batches_change_no_loss() -> None:
    task, batch = task_of(2), Batch(images(2), None, ("x",) * 4)
    network = task.build().eval()
    with torch.no_grad():
        whole = task.loss(network, batch, random(4)).value
        parts = [
            task.loss(network, batch.part(i, i + 1), random(4, i, i + 1)).value for i in range(4)
        ]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def settings(
    data: Path, out: Path, cache: Path, source: Path, **changes: object
) -> dict[str, object]:
    given = pretrain_settings(data, out, cache, objective="clean-features", **changes)
    return {k: v for k, v in given.items() if k not in ("network", "plan")} | {"from_": source}


def test_it_has_plan_and_network_of_the_denoiser_and_starts_probing_and_finetuning(
    unlabelled: Path, films: Path, pretrained: Path, tmp_path: Path
) -> None:
    cache, source = tmp_path / "cache", Run.open(pretrained)
    run = radiffuse.pretrain(**settings(unlabelled, tmp_path / "clean", cache, pretrained))
    before = (run.folder / "config.yaml").read_text()
    radiffuse.pretrain(**settings(unlabelled, tmp_path / "clean", cache, pretrained))  # goes on
    assert (run.folder / "config.yaml").read_text() == before
    network, teacher = load_network(run.model), load_denoiser(source)
    assert isinstance(network, UNet)
    assert network.config == teacher.config
    assert not torch.equal(network.stem.weight, teacher.stem.weight)
    assert run.plan.size == source.plan.size
    recorded = run.config["settings"]
    assert recorded["feature_timesteps"] == [10, 30, 100, 300]
    assert "diffusion" not in recorded
    common = {
        "data": films, "from_run": str(run.folder), "training": {"steps": 2, "batch_size": 2},
        "split": {"test": 0.4, "validation": 0.2}, "reader": {"cache": str(cache)},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    }  # fmt: skip
    assert radiffuse.fit(**common, method="finetune", out=tmp_path / "seg").finished
    probed = radiffuse.fit(**common, method="probe", out=tmp_path / "probe", probe={"width": 8})
    heads = load_network(probed.model).configs  # type: ignore[union-attr]
    assert {head.timesteps for head in heads} == {(0,)}  # type: ignore[operator, union-attr]
    with pytest.raises(InputError, match="which knows no timesteps"):
        radiffuse.pretrain(**settings(unlabelled, tmp_path / "x", cache, run.folder))


def test_a_guided_denoiser_in_volumes_stays_guided(tmp_path: Path) -> None:
    from radiffuse.phantoms import write_dataset

    write_dataset("abdomen", tmp_path / "ct", count=4, labelled=False, seed=0, size=(24, 24, 20))
    given = (tmp_path / "ct", tmp_path / "cache")
    few = {"steps": 2, "batch_size": 2}
    deep = {"plan": {"size": (16, 16, 16)}, "training": few}
    where = pretrain_settings(
        given[0], tmp_path / "where", given[1], objective="coordinates", **deep
    )
    guided = pretrain_settings(given[0], tmp_path / "pre", given[1], training=few)
    radiffuse.pretrain(**where)
    radiffuse.pretrain(**guided | {"plan": {}, "coordinates": str(tmp_path / "where")})
    run = radiffuse.pretrain(
        **settings(given[0], tmp_path / "clean", given[1], tmp_path / "pre", training=few)
    )
    network = load_network(run.model)
    assert isinstance(network, GuidedUNet)
    regressor = load_network(tmp_path / "where" / "model")
    assert all(
        torch.equal(v, network.regressor.state_dict()[k]) for k, v in regressor.state_dict().items()
    )
    with pytest.raises(InputError, match="regressor images of another scale"):
        radiffuse.pretrain(
            **settings(given[0], tmp_path / "x", given[1], tmp_path / "pre", training=few), zoom=2.0
        )


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ("", "--objective clean-features: learns from a denoiser. Give its run with --from."),
        (
            "--from RUN --feature-timesteps 5,1000",
            "--feature-timesteps 1000: .* timesteps 0 to 999",
        ),
        ("--from RUN --schedule linear", "--from has its noising process"),
        ("--from RUN --size 64,64", "was trained at 32 x 32"),
        ("--from RUN --width 16", "was trained with the width 8"),
    ],
)
def test_what_does_not_fit_is_refused(
    flags: str, word: str, unlabelled: Path, pretrained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [
        "pretrain",
        str(unlabelled),
        "--objective",
        "clean-features",
        "--out",
        str(tmp_path / "r"),
    ]
    line = line_of([*words, *flags.replace("RUN", str(pretrained)).split()], capsys)
    assert re.search(word, line), line
    assert not (tmp_path / "r" / "model").exists()
