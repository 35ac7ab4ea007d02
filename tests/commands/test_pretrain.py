"""Pre-training: what is trained on, what is held out, what a rival's encoder may do."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nibabel as nib
import numpy as np
import pytest
import torch

import radiffuse
from conftest import SIZE, TINY, pretrain_settings
from radiffuse.cli.settings import from_values
from radiffuse.config import Diffusion, Network, Pretrain, Training, resolve_network
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.data.batches import Batch
from radiffuse.data.dataset import Case, Dataset
from radiffuse.data.plan import Plan
from radiffuse.data.prepared import Prepared
from radiffuse.errors import InputError
from radiffuse.nets.registry import load_network
from radiffuse.nets.unet import UNet
from radiffuse.objectives import OBJECTIVES
from radiffuse.objectives.ddep import DECODER, DecoderDenoising
from radiffuse.objectives.denoising import Denoising
from radiffuse.phantoms import write_dataset
from radiffuse.synthesis.denoiser import LatentBatch, LatentDenoising
from radiffuse.train import start
from radiffuse.train.cases import hold_out, limited
from radiffuse.train.planning.plan_text import rows
from radiffuse.train.random import StepRandom
from radiffuse.train.run import Run
from radiffuse.train.unlabelled import plan_unlabelled

UNET = resolve_network(Network(**TINY), spatial_dims=2, in_channels=1, out_channels=1)  # type: ignore[arg-type]


def cases(groups: list[str]) -> tuple[Case, ...]:
    return tuple(Case(f"c{i:03d}", (), group=g) for i, g in enumerate(groups))


def test_a_run_folder_is_complete(pretrained: Path) -> None:
    run = Run.open(pretrained)
    assert run.finished
    for name in (
        "config.yaml",
        "plan.json",
        "data.json",
        "log.jsonl",
        "report.html",
        "samples.npy",
    ):
        assert (pretrained / name).stat().st_size > 0, name
    samples = np.load(pretrained / "samples.npy", allow_pickle=False)
    assert samples.shape == (16, 32, 32)
    assert samples.dtype == np.uint8
    average, raw = (load_network(run.model, name) for name in ("model", "raw"))
    assert any(
        not torch.equal(a, b) for a, b in zip(average.parameters(), raw.parameters(), strict=True)
    )
    rows = run.log()
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)


def test_no_patient_is_trained_on_and_held_out() -> None:
    listed = cases([f"p{i // 3}" for i in range(60)])
    prepared = Prepared(Path(), Plan(2, ("x",), (), (8, 8)), listed, tuple(range(60)), (), False)
    training, held = hold_out(prepared, seed=0)
    group = {case.name: case.group for case in listed}
    assert len(held) == 3  # 5 %, rounded up to whole patients
    assert not {listed[i].group for i in training} & {group[name] for name in held}
    assert len(training) + len(held) == 60
    one = Prepared(Path(), prepared.plan, cases(["p"] * 40), tuple(range(40)), (), False)
    training, held = hold_out(one, seed=0)
    assert (len(training), held) == (40, [])


def test_a_patient_with_most_images_is_learned_from() -> None:
    """Held out with all of them, it would leave a fraction of the pool to learn from, by chance."""
    listed = cases(["most"] * 200 + [f"p{i // 5}" for i in range(100)])
    plan = Plan(2, ("x",), (), (8, 8))
    prepared = Prepared(Path(), plan, listed, tuple(range(300)), (), False)
    for seed in range(20):
        training, held = hold_out(prepared, seed)
        assert len(held) == 15  # 5 %
        assert len(training) == 285
    slices = cases([f"p{i // 30}" for i in range(90)])  # all have more than 5 %
    prepared = Prepared(Path(), plan, slices, tuple(range(90)), (), False)
    assert len(hold_out(prepared, 0)[1]) == 30


def test_limits_are_nested() -> None:
    dataset = Dataset(Path("d"), "images", cases([f"p{i}" for i in range(20)]))
    names = [{c.name for c in limited(dataset, n, 0)} for n in (3, 8, 20)]
    assert [len(n) for n in names] == [3, 8, 20]
    assert names[0] < names[1] < names[2]
    assert {c.name for c in limited(dataset, 3, 1)} != names[0]


def test_a_limit_is_what_the_run_says_it_used(unlabelled: Path, tmp_path: Path) -> None:
    run = radiffuse.pretrain(
        **pretrain_settings(unlabelled, tmp_path / "run", tmp_path / "cache", limit=10)
        | {"training": {"steps": 1, "batch_size": 2, "validate_every": 1}}
    )
    data = json.loads((run.folder / "data.json").read_text())
    assert data["cases"] == 10
    assert data["skipped"] == []


def test_a_run_can_start_from_another(pretrained: Path, unlabelled: Path, tmp_path: Path) -> None:
    settings = pretrain_settings(unlabelled, tmp_path / "run", tmp_path / "cache")
    still = settings | {
        "from_": pretrained,
        "training": {"steps": 1, "batch_size": 2, "learning_rate": 0.0, "average_decay": 0.0},
    }
    run = radiffuse.pretrain(**still)
    first, second = load_network(pretrained / "model"), load_network(run.model)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    other = still | {"out": tmp_path / "other", "network": TINY | {"width": 16}}
    with pytest.raises(InputError, match="another network"):
        radiffuse.pretrain(**other)


def test_further_images_of_held_out_patients_are_left_out_and_it_is_said(
    unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three further images: of all patients, as a density's are, of one who is held out, and of somebody else."""
    patients = sorted(path.stem for path in unlabelled.rglob("*.png"))
    base = pretrain_settings(unlabelled, tmp_path / "run", tmp_path / "cache")
    base |= {"training": {"steps": 1, "batch_size": 2}}
    held = radiffuse.pretrain(**base).data["split"]["validation"]
    write_dataset("bitewing", tmp_path / "more", count=3, labelled=False, seed=9, size=SIZE)
    drawn = sorted((tmp_path / "more").rglob("*.png"))
    files = [file.rename(file.with_name(f"more-{file.name}")) for file in drawn]
    whose = ("+".join(patients), held[0], "somebody")
    rows = [f"{file.name},{patient}" for file, patient in zip(files, whose, strict=True)]
    (tmp_path / "more" / "patients.csv").write_text("\n".join(["image,patient", *rows]) + "\n")
    capsys.readouterr()
    run = radiffuse.pretrain(**base | {"out": tmp_path / "both", "with_run": [tmp_path / "more"]})
    line = f"--with {tmp_path / 'more'}: 2 of its 3 images are left out, of validation patients"
    assert line in capsys.readouterr().err
    assert run.data["with_cases"] == 1
    assert run.data["split"]["validation"] == held


def test_decoder_denoising_leaves_the_encoder_alone(
    pretrained: Path, unlabelled: Path, tmp_path: Path
) -> None:
    run = radiffuse.pretrain(
        **pretrain_settings(unlabelled, tmp_path / "run", tmp_path / "cache")
        | {
            "from_": pretrained,
            "objective": "ddep",
            "training": {"steps": 2, "batch_size": 2, "learning_rate": 0.01},
        }
    )
    assert not (
        run.folder / "samples.npy"
    ).exists()  # it knows one noise level, not those of drawing
    source = load_network(pretrained / "model").state_dict()
    changed = {
        k for k, v in load_network(run.model).state_dict().items() if not torch.equal(v, source[k])
    }
    assert changed
    assert all(name.startswith(DECODER) for name in changed)


def test_the_decoders_target_is_the_noise() -> None:
    class Known(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            assert (t == 0).all()
            return x / 0.22

    task = DecoderDenoising(UNet(UNET), sigma=0.22)
    noise = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    # x = 0 + sigma noise, so x / sigma is the noise and the error is none.
    assert float(task.error(Known(), torch.zeros(2, 1, 32, 32), noise).max()) < 1e-10
    trainable = {p.requires_grad for p in task.build().parameters()}
    assert trainable == {True}


def test_the_network_at_its_start_depends_on_the_seed_alone() -> None:
    plan = Plan(2, ("image",), (), (32, 32))
    pool = SimpleNamespace(plan=plan)

    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed + 100)
        settings = Pretrain(network=Network(**TINY), training=Training(seed=seed))
        network = OBJECTIVES["ddpm"](settings).started(cast(Any, pool))
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_learned_variance_and_loss_aware_timesteps_train(unlabelled: Path, tmp_path: Path) -> None:
    run = radiffuse.pretrain(
        **pretrain_settings(unlabelled, tmp_path / "run", tmp_path / "cache")
        | {
            "diffusion": {"variance": "learned", "timestep_sampling": "loss-aware"},
            "training": {"steps": 2, "batch_size": 2, "log_every": 1},
        }
    )
    network = load_network(run.model)
    assert isinstance(network, UNet)
    assert network.config.out_channels == 2
    assert all(np.isfinite(row["loss"]) for row in run.log() if "loss" in row)


class Silent(torch.nn.Module):
    """Answers nothing, and records the timesteps."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[torch.Tensor] = []

    def forward(
        self, x_t: torch.Tensor, t: torch.Tensor, condition: torch.Tensor | None = None
    ) -> torch.Tensor:
        self.seen.append(t)
        return self.zero * x_t


@pytest.mark.parametrize("kind", ["images", "latents"])
def test_losses_are_weighed_and_remembered(kind: str) -> None:
    """Asked for the image and answering 0, the error of image i is its brightness squared: (i / 16)^2."""
    process = Diffusion(
        num_train_timesteps=4, prediction_type="x_start", timestep_sampling="loss-aware"
    )
    brightness = torch.arange(16) / 16
    images = brightness[:, None, None, None].expand(16, 1, 4, 4)
    names = tuple("abcdefghijklmnop")
    batch, task = Batch(images, None, names), Denoising(UNet(UNET), process)
    if kind == "latents":  # mean and spread, the latter 0
        latents = torch.cat([images, torch.zeros_like(images)], dim=1)
        batch = LatentBatch(latents, None, names, torch.zeros(16, 2))
        task = LatentDenoising(Silent, process, null=0.5)  # type: ignore[assignment]
    for _ in range(10):  # a history of 3, 2, 0, 0, whose squares are 9, 4, 0, 0
        task.timesteps.update(torch.arange(4), torch.tensor([3.0, 2.0, 0.0, 0.0]))
    weight = torch.tensor([1 / (4 * p) for p in (0.5965, 0.3985, 0.0025, 0.0025)])
    network, cpu = Silent(), torch.device("cpu")
    random = StepRandom(0, 0, total=16, start=0, stop=16, device=cpu)
    value = float(task.loss(network, batch, random).value.detach())
    (t,) = network.seen
    assert value == pytest.approx(float((weight[t] * brightness**2).mean()), rel=1e-5)
    assert value != pytest.approx(float((brightness**2).mean()), rel=0.05)
    counts, history = task.state_dict()["counts"], task.state_dict()["history"]
    assert torch.equal(counts, 10 + torch.bincount(t, minlength=4))
    for timestep in range(2):  # before their weights; the ring begins anew after ten
        seen = (brightness[t == timestep] ** 2)[-10:]
        kept = history[timestep].sort().values.tolist()
        assert all(any(k == pytest.approx(float(s)) for k in kept) for s in seen)


def test_validation_spreads_its_timesteps_evenly() -> None:
    """The noise is the network's to find: answering 0, the error is the mean square of the noise, about 1."""
    held_out = torch.zeros(5, 1, 32, 32)
    task = Denoising(UNet(UNET), Diffusion(num_train_timesteps=1001), held_out)
    network = Silent()
    with torch.no_grad():
        first, again = (task.validate(network, torch.device("cpu")) for _ in range(2))
    assert torch.cat(network.seen).tolist() == 2 * [100, 300, 500, 700, 900]
    assert first["loss"] == pytest.approx(1, abs=0.1)
    assert again == first


# ------------------------------------------------------------------------------------------------ the noise schedule


def chosen(unlabelled: Path, tmp_path: Path, size: int, **changes: Any) -> tuple[Plan, Pretrain]:
    plan = {"size": (size, size)}
    values = pretrain_settings(unlabelled, tmp_path / "o", tmp_path / "c", plan=plan, **changes)
    planned = plan_unlabelled(OBJECTIVES["ddpm"](from_values("pretrain", values)))
    return planned.plan, planned.objective.settings


def test_the_patch_decides_by_how_much_the_noise_is_shifted(
    unlabelled: Path, pretrained: Path, tmp_path: Path
) -> None:
    """Twice the side of 64 pixels: four pixels for one, so a quarter of the signal to noise (Hoogeboom et al. 2023)."""
    for size, shift in ((128, 2.0), (64, 1.0), (32, 1.0)):
        plan, settings = chosen(unlabelled, tmp_path, size)
        assert plan.shift == settings.diffusion.shift == shift
        hides = "; in a larger image the same noise hides less" if size > 64 else ""
        why = f"the usual suits 64 pixels a side, or fewer{hides}"
        assert ("noise", "2 times the usual" if size > 64 else "the usual", why) in [*rows(plan)]
    plan, settings = chosen(unlabelled, tmp_path, 128, diffusion={"shift": 3.0})
    assert plan.shift is None
    assert settings.diffusion.shift == 3
    plan, settings = chosen(unlabelled, tmp_path, 128, **{"from": pretrained})
    assert plan.shift == settings.diffusion.shift == 1  # as that run has it, of 32 pixels
    assert "run to start from" in plan.reasons["shift"]


def test_a_shift_of_one_leaves_the_schedule_as_it_is_to_the_bit() -> None:
    plain, shifted = (GaussianDiffusion(Diffusion(shift=s)).alphas_cumprod for s in (None, 1.0))
    assert torch.equal(plain, shifted)


def test_the_network_to_start_from_is_loaded_once(
    unlabelled: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    load = start.load_network
    monkeypatch.setattr(start, "load_network", lambda f, *a: loaded.append(f) or load(f, *a))
    values = pretrain_settings(unlabelled, tmp_path / "o", tmp_path / "c", **{"from": pretrained})
    radiffuse.pretrain(**values | {"network": {}})
    assert len(loaded) == 1
    recorded = Run.open(tmp_path / "o").config
    assert recorded["settings"]["diffusion"]["shift"] == 1
    assert "diffusion.shift" in recorded["decided"]
    radiffuse.pretrain(**values | {"network": {}})  # what was decided stands


@pytest.mark.parametrize("known", [True, False])
def test_voxels_of_unknown_size_are_said_to_be_taken_for_1_mm(
    tmp_path: Path, known: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a code of an affine and with sizes of 0, at their bytes in the NIfTI header."""
    (tmp_path / "scans").mkdir()
    for i in range(3):
        array = np.random.default_rng(i).normal(size=(16, 16, 16)).astype(np.float32)
        raw = bytearray(nib.Nifti1Image(array, np.eye(4)).to_bytes())
        if not known:
            raw[80:92], raw[252:256] = bytes(12), bytes(4)
        (tmp_path / "scans" / f"{i}.nii").write_bytes(raw)
    settings = pretrain_settings(
        tmp_path / "scans",
        tmp_path / "run",
        tmp_path / "cache",
        plan={"size": (16,)},
        training={"steps": 1, "batch_size": 1, "keep_state": False},
    )
    run = radiffuse.pretrain(**settings)
    said = [
        "scans: has volumes that do not say how large" in capsys.readouterr().err,
        "taken for 1 mm" in run.plan.reasons.get("spacing", ""),
        "taken for 1 mm" in (run.folder / "report.html").read_text(),
    ]
    assert said == [not known] * 3
