"""Generation: every strategy, provenance in table and file, a data set that other commands take."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import radiffuse
from conftest import line_of
from radiffuse.config import Diffusion
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.core.sampling import inference_timesteps
from radiffuse.data.cases import read_case_image
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.data.transform import image_to_plan
from radiffuse.errors import InputError
from radiffuse.phantoms import write_dataset
from radiffuse.synthesis import synthesizer as synthesizer_module
from radiffuse.synthesis.sampling import guided, sample_latents
from radiffuse.synthesis.synthesizer import Synthesizer, load_synthesizer
from radiffuse.train.run import Run

MACHINE = {"accelerator": "cpu", "precision": "32-true"}
ALL = ("variation", "interpolate", "perturb", "from-image", "manifold")


def draw(run: Path, out: Path, **changes: object) -> Path:
    settings = {"strategy": ALL, "count": 4, "steps": 3, "machine": MACHINE} | changes
    return Path(radiffuse.generate(run=run, out=out, **settings))


@pytest.fixture(scope="module")
def drawn(synthesizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = synthesizer.parent / "cache"
    return draw(synthesizer, tmp_path_factory.mktemp("d") / "fake", reader={"cache": str(cache)})


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "provenance.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_carries_its_provenance(drawn: Path, classes: Path) -> None:
    rows = rows_of(drawn)
    assert len(rows) == 20
    assert {row["image"] for row in rows} == {
        p.relative_to(drawn).as_posix() for p in drawn.rglob("*.png")
    }
    real = {case.name: case for case in open_dataset(classes)}
    for row in rows:
        with Image.open(drawn / row["image"]) as image:
            assert image.size == (32, 32)
            assert image.mode == "L"
            assert "synthetic" in image.info["Synthetic"]
            inside = json.loads(image.info["radiffuse"])
        assert {key: str(value) for key, value in inside.items()} == row
        assert row["synthetic"] == "yes"
        parents = row["parents"].split("+") if row["parents"] else []
        counts = {"manifold": 0, "interpolate": 2}
        assert len(parents) == counts.get(row["strategy"], 1)
        assert {real[p].target for p in parents} <= {row["class"]}
        assert row["image"].startswith(row["class"] + "/")
    assert len({row["seed"] for row in rows}) == len(rows)
    assert {r["strength"] for r in rows if r["strategy"] == "perturb"} == {"0.5"}


def test_the_folder_is_a_data_set(drawn: Path) -> None:
    dataset = open_dataset(drawn)
    assert dataset.layout == "table"
    assert len(dataset) == 20
    assert {case.target for case in dataset} == {"even", "odd"}
    groups = {row["patient"] for row in rows_of(drawn) if row["strategy"] != "manifold"}
    of_manifold = {case.group for case in dataset if "manifold" in case.name}
    assert {case.group for case in dataset} == groups | of_manifold
    assert len(of_manifold) == 1


def test_a_stopped_generation_goes_on_and_ends_the_same(
    drawn: Path, synthesizer: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fake"
    shutil.copytree(drawn, out)
    before = {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*.*"))}
    for path in sorted(out.rglob("*.png"))[::3]:
        path.unlink()
    (out / "provenance.csv").unlink()
    kept = next(iter(sorted(out.rglob("*.png"))))
    stamp = kept.stat().st_mtime_ns
    draw(synthesizer, out)
    assert {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*.*"))} == before
    assert kept.stat().st_mtime_ns == stamp


def test_strategies_differ_and_seeds_count(drawn: Path, synthesizer: Path, tmp_path: Path) -> None:
    def pixels(folder: Path, strategy: str) -> np.ndarray:
        files = sorted(folder.rglob(f"{strategy}-*.png"), key=lambda p: p.name)
        return np.stack([np.asarray(Image.open(p)) for p in files])

    films = [pixels(drawn, strategy) for strategy in ALL]
    for i in range(len(ALL)):
        for j in range(i):
            assert not np.array_equal(films[i], films[j])
    other = draw(synthesizer, tmp_path / "other", strategy=("variation",), seed=1)
    assert not np.array_equal(pixels(other, "variation"), films[0])
    alone = draw(synthesizer, tmp_path / "alone", strategy=("manifold",), batch=3)
    difference = pixels(alone, "manifold").astype(int) - films[4]
    assert np.abs(difference).max() <= 1  # other batches round differently


def test_a_reconstruction_is_the_film_through_the_autoencoder_and_says_whose_it_is(
    synthesizer: Path, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references = {"references": classes, "steps": None, "strategy": ("reconstruction",)}
    out = draw(synthesizer, tmp_path / "fake", **references)
    run = Run.open(synthesizer)
    autoencoder = load_synthesizer(run.model, 1).autoencoder
    real = {case.name: case for case in open_dataset(classes)}
    for row in rows_of(out):
        image, _ = image_to_plan(read_case_image(real[row["parents"]]), run.plan)
        mean = autoencoder.encode(torch.from_numpy(image)[None])[:, : autoencoder.latent_channels]
        wanted = 127.5 * (autoencoder.decode(mean)[0, 0].numpy() + 1)
        with Image.open(out / row["image"]) as file:
            # Latents are stored as float16.
            assert np.abs(np.asarray(file, float) - wanted).max() < 1
            assert file.info["Synthetic"].endswith("it shows a patient.")
        assert row["patient"] == real[row["parents"]].group
        assert (row["guidance"], row["sampler"], row["steps"]) == ("", "", "0")
    command = ["generate", str(synthesizer), "--strategy", "reconstruction", "--accelerator", "cpu"]
    capsys.readouterr()
    line = line_of([*command, "--guidance", "2", "--out", str(tmp_path / "b")], capsys)
    assert "--guidance: takes no effect, since a reconstruction is not sampled" in line


def test_classes_need_two_images_to_interpolate(
    synthesizer: Path, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    shutil.copytree(classes, few)
    before = {"references": few, "strategy": ("variation",), "count": 1, "steps": 2}
    out = draw(synthesizer, tmp_path / "was", **before)
    sorted((few / "even").iterdir())[3].unlink()
    with pytest.raises(InputError, match="holds a generation with embeddings"):
        draw(synthesizer, out, **before)
    capsys.readouterr()
    for path in sorted((few / "odd").iterdir())[1:]:
        path.unlink()
    command = ["generate", str(synthesizer), "--references", str(few), "--count", "2"]
    command += ["--steps", "2", "--accelerator", "cpu"]
    line = line_of([*command, "--strategy", "interpolate", "--out", str(tmp_path / "a")], capsys)
    assert "odd has 1 usable image, interpolate needs two" in line.replace(":", "")
    broken = sorted((few / "even").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:60])
    assert broken.name in line_of([*command, "--out", str(tmp_path / "b")], capsys)


def test_bad_settings_end_in_one_line(
    synthesizer: Path, drawn: Path, classes: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = str(tmp_path / "fake")
    run = ["generate", str(synthesizer), "--out"]
    line = line_of([*run, out, "--strategy", "from-image", "--strength", "1.5"], capsys)
    assert "up to 1" in line
    assert "is for a denoiser" in line_of([*run, out, "--sampler", "ddpm"], capsys)
    assert "is not empty" in line_of([*run, str(classes)], capsys)
    assert "holds a generation with" in line_of([*run, str(drawn), "--guidance", "3"], capsys)
    assert "the disk has" in line_of([*run, out, "--count", "1000000000000"], capsys)
    assert "more than the 1000" in line_of([*run, out, "--steps", "5000", "--count", "1"], capsys)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size": (32, 36)}, "has size 32x36, the synthesizer takes multiples of 8"),
        (
            {"spatial_dims": 3, "size": (16, 16, 16), "spacing": (1.0, 1.0, 1.0)},
            "is for 3D images, and synthesizers draw films",
        ),
        ({}, ""),
    ],
)
def test_a_plan_edited_for_other_images_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], word: str
) -> None:
    """A size between multiples gave smaller films than the plan says."""
    whole = SimpleNamespace(autoencoder=SimpleNamespace(factor=4))
    monkeypatch.setattr(synthesizer_module, "load_synthesizer", lambda folder, channels: whole)
    plan = replace(Plan(2, ("image",), (), (32, 40)), **change)
    (tmp_path / "plan.json").write_text(plan.to_json())
    if not word:
        assert synthesizer_module.synthesizer_of(Run(tmp_path)) is whole
        return
    with pytest.raises(InputError, match=rf"plan\.json: {word}"):
        synthesizer_module.synthesizer_of(Run(tmp_path))


def test_a_denoiser_generates_films_that_are_a_data_set(pretrained: Path, tmp_path: Path) -> None:
    settings = {"run": pretrained, "count": 2, "steps": 2, "machine": MACHINE}
    first = radiffuse.generate(**settings, out=tmp_path / "a")
    second = radiffuse.generate(**settings, sampler="ddpm", out=tmp_path / "b")
    names = [f"sample-{i:05d}.png" for i in range(2)]
    assert sorted(p.name for p in first.glob("*.png")) == names
    for name in names:
        assert Image.open(first / name).size == (32, 32)
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert [row["image"] for row in rows_of(first)] == names
    assert len(open_dataset(first)) == 2
    # A missing image is made again as it was, and other settings are refused.
    before = (first / names[1]).read_bytes()
    (first / names[1]).unlink()
    radiffuse.generate(**settings, out=first)
    assert (first / names[1]).read_bytes() == before
    with pytest.raises(InputError, match="holds a generation with seed"):
        radiffuse.generate(**settings, seed=1, out=first)


def test_a_denoiser_generates_volumes_in_units_of_the_scan(
    pretrained: Path, tmp_path: Path
) -> None:
    from radiffuse.config import UNetConfig
    from radiffuse.data.cases import read_case_image
    from radiffuse.data.plan import Plan
    from radiffuse.nets.registry import save_network
    from radiffuse.nets.unet import UNet

    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(pretrained / "config.yaml", run)
    plan = Plan(3, ("CT",), (), (8, 8, 8), (1.0, 1.5, 2.0), intensity="window", low=-100, high=300)
    (run / "plan.json").write_text(plan.to_json())
    torch.manual_seed(0)
    unet = UNet(
        UNetConfig(
            spatial_dims=3, in_channels=1, out_channels=1, width=8, multipliers=(1, 2), blocks=1,
            attention_factors=(2,), head_channels=8,
        )
    )  # fmt: skip
    save_network(unet, run / "model")
    out = radiffuse.generate(run=run, out=tmp_path / "out", count=2, steps=2, machine=MACHINE)
    dataset = open_dataset(out)
    scan = read_case_image(dataset.cases[1])
    assert scan.array.shape == (1, 8, 8, 8)
    assert scan.spacing == pytest.approx((1.0, 1.5, 2.0))
    assert scan.array.min() >= -100
    assert scan.array.max() <= 300
    assert [case.images[0].name for case in open_dataset(out)] == [
        f"sample-{i:05d}.nii.gz" for i in range(2)
    ]


@pytest.mark.parametrize(
    ("flag", "value"),
    [("strategy", "manifold"), ("references", "real"), ("guidance", "2"), ("batch", "3"),
     ("sampler", "dpm++")],
)  # fmt: skip
def test_a_denoiser_refuses_the_settings_of_synthesizers(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    command = ["generate", str(pretrained), "--out", str(tmp_path / "out"), f"--{flag}", value]
    line = line_of(command, capsys)
    assert f"--{flag}" in line
    assert "is a denoiser" in line
    assert not (tmp_path / "out").exists()


def test_guidance_weighs_the_conditional_against_the_unconditional() -> None:
    class Known(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
            return e.sum(1)[:, None, None, None].expand_as(x)

    x, t, given = torch.zeros(2, 1, 2, 2), torch.zeros(2).long(), torch.tensor([[3.0], [5.0]])
    for weight in (0.0, 1.0, 2.5):
        answer = guided(Known(), given, weight)(x, t)  # type: ignore[arg-type]
        assert torch.allclose(answer[:, 0, 0, 0], weight * given[:, 0])


class Exact(torch.nn.Module):
    """The denoiser of latents that are N(0, 0.3^2), in closed form."""

    def __init__(self, diffusion: Diffusion) -> None:
        super().__init__()
        self.process = GaussianDiffusion(diffusion)

    def forward(self, x: torch.Tensor, t: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        a = self.process.alphas_cumprod[t][:, None, None, None]
        estimate = a.sqrt() * 0.09 / (a * 0.09 + 1 - a) * x
        if self.process.config.prediction_type == "v":
            epsilon = (x - a.sqrt() * estimate) / (1 - a).sqrt()
            return a.sqrt() * epsilon - (1 - a).sqrt() * estimate
        return (x - a.sqrt() * estimate) / (1 - a).sqrt()


def ddim_spread(diffusion: Diffusion, steps: int) -> float:
    """Standard deviation that DDIM arrives at from noise of 1, by multiplying its steps, which are linear here."""
    process = GaussianDiffusion(diffusion)
    leading = diffusion.prediction_type == "epsilon"
    timesteps = inference_timesteps(steps, 1000, "leading" if leading else "trailing")
    factor = 1.0
    for t, after in zip(timesteps, [*timesteps[1:], -1], strict=True):
        a, b = process.signal(t), process.signal(after)
        k = a**0.5 * 0.09 / (a * 0.09 + 1 - a)
        factor *= b**0.5 * k + (1 - b) ** 0.5 * (1 - a**0.5 * k) / (1 - a) ** 0.5
    return factor


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_samplers_reach_the_spread_of_the_data(synthesizer: Path, sampler: str, prediction: str) -> None:  # fmt: skip
    diffusion = Diffusion(
        schedule="scaled-linear",
        prediction_type=prediction,  # type: ignore[arg-type]
        zero_terminal_snr=prediction == "v",
    )
    real = load_synthesizer(synthesizer / "model", 1)
    exact = Synthesizer(
        Exact(diffusion),  # type: ignore[arg-type]
        real.autoencoder, real.encoder, diffusion, {}, {},
    )  # fmt: skip
    noise = torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    latents = sample_latents(
        exact, torch.zeros(2000, 3), noise, sampler=sampler, steps=200  # type: ignore[arg-type]
    )  # fmt: skip
    expected = 0.3 if sampler == "dpm++" else ddim_spread(diffusion, 200) * float(noise.std())
    assert float(latents.std()) == pytest.approx(expected, rel=0.03 if sampler == "dpm++" else 1e-3)
    # Both are deterministic and linear here: the sample is the noise, scaled.
    assert float(torch.corrcoef(torch.stack([latents.flatten(), noise.flatten()]))[0, 1]) > 0.9999


def test_from_image_keeps_more_of_the_image_at_less_strength(synthesizer: Path) -> None:
    diffusion = Diffusion(schedule="scaled-linear", prediction_type="v", zero_terminal_snr=True)
    real = load_synthesizer(synthesizer / "model", 1)
    exact = Synthesizer(
        Exact(diffusion),  # type: ignore[arg-type]
        real.autoencoder, real.encoder, diffusion, {}, {},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    start, noise = (torch.randn(200, 1, 4, 4, generator=generator) for _ in range(2))
    kept = []
    for strength in (0.05, 0.3, 0.6, 1.0):
        latents = sample_latents(
            exact, torch.zeros(200, 3), noise, steps=50, start=0.3 * start, strength=strength
        )
        pair = torch.stack([latents.flatten(), start.flatten()])
        kept.append(float(torch.corrcoef(pair)[0, 1]))
    assert kept[0] > 0.8
    assert kept == sorted(kept, reverse=True)
    assert abs(kept[3]) < 0.1  # at zero terminal SNR nothing is left of it


@pytest.mark.parametrize("references", ["nowhere", "volumes"])
def test_references_that_cannot_be_used_are_refused_before_anything_is_written(
    synthesizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], references: str
) -> None:
    place = tmp_path / references
    if references == "volumes":
        write_dataset("abdomen", place, count=2, labelled=False, seed=1, size=(16, 16, 16))
    line = ["generate", str(synthesizer), "--references", str(place), "--out", str(tmp_path / "x")]
    refused = line_of([*line, "--dry-run"], capsys)
    assert ("holds volumes" if references == "volumes" else "does not exist") in refused
    assert line_of(line, capsys) == refused
    assert not (tmp_path / "x").exists()
