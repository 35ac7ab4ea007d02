"""Synthesis: three stages that resume, a pipeline that diffusers loads, given encoders and starts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import radiffuse
from conftest import line_of, synthesize_settings
from radiffuse.config import Diffusion, DinoSettings
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.data.prepare import prepare
from radiffuse.errors import InputError
from radiffuse.synthesis.denoiser import ConditionalDenoiser
from radiffuse.synthesis.dino import DinoNetwork
from radiffuse.synthesis.embedding import features
from radiffuse.synthesis.synthesizer import scheduler_of
from radiffuse.synthesis.views import ViewBatches
from radiffuse.train.run import Run

WITHOUT_RADIFFUSE = """
import sys, torch
from diffusers import DiffusionPipeline
for folder in sys.argv[1:]:
    pipe = DiffusionPipeline.from_pretrained(folder)
    told = torch.nn.functional.normalize(torch.randn(2, 1, pipe.unet.config.encoder_hid_dim), dim=-1)
    draw = lambda **k: pipe(num_inference_steps=2, height=32, width=32, output_type="np", **k,
                            generator=torch.Generator().manual_seed(0)).images
    both = draw(prompt_embeds=told, negative_prompt_embeds=torch.zeros_like(told), guidance_scale=2.0)
    assert both.shape == (2, 32, 32, 1), both.shape
    words, null = draw(prompt="any text"), draw(prompt_embeds=0 * told[:1], guidance_scale=1.0)
    assert abs(words - null).max() < 1e-5
    assert abs(words - both[:1]).max() > 1e-5
assert "radiffuse" not in sys.modules
"""


@pytest.fixture(scope="module")
def flow(
    classes: Path, synthesizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """Settings of a finished run of an aligned flow."""
    out = tmp_path_factory.mktemp("flow")
    settings = synthesize_settings(classes, out / "flow", synthesizer.parent / "cache")
    del settings["dino"], settings["vae"]
    settings |= {
        "encoder": synthesizer / "encoder/model",
        "autoencoder": synthesizer / "autoencoder/model",
        "diffusion": {"schedule": "flow", "timestep_sampling": "logit-normal", "shift": 2.0},
        "alignment": 0.5,
    }
    radiffuse.synthesize(**settings)
    return settings


def test_diffusers_loads_and_samples_it_without_radiffuse(
    synthesizer: Path, flow: dict[str, object]
) -> None:
    models = [f"{folder}/model" for folder in (synthesizer, flow["out"])]
    script = [sys.executable, "-c", WITHOUT_RADIFFUSE, *models]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_aligned_flow_resumes_and_is_drawn(
    classes: Path, synthesizer: Path, flow: dict[str, object], tmp_path: Path
) -> None:
    settings = flow | {"out": tmp_path / "flow"}
    shutil.copytree(Path(str(flow["out"])), tmp_path / "flow")
    run = Run.open(tmp_path / "flow")
    apart = [row["misalignment"] for row in run.log() if "misalignment" in row]
    assert len(apart) == 4
    assert all(0 < value < 2 for value in apart)
    weights = run.model / "unet/diffusion_pytorch_model.safetensors"
    expected = weights.read_bytes()
    shutil.rmtree(run.model)
    shutil.rmtree(run.folder / "state" / "step-00000004")
    radiffuse.synthesize(**settings)
    assert weights.read_bytes() == expected
    drawing = {"run": run.folder, "count": 1, "steps": 2, "references": classes}
    machine = {"accelerator": "cpu", "precision": "32-true"}
    drawn = [
        radiffuse.generate(**drawing, machine=machine, sampler=sampler, out=tmp_path / str(sampler))
        for sampler in (None, "ddim", "heun")
    ]
    films = [sorted(folder.rglob("*.png"))[0].read_bytes() for folder in drawn]
    assert films[0] == films[1] != films[2]
    for source, sampler in ((run.folder, "dpm++"), (synthesizer, "heun")):
        with pytest.raises(InputError, match=rf"sampler {re.escape(sampler)}"):
            radiffuse.generate(
                **drawing | {"run": source}, sampler=sampler, out=tmp_path / "refused"
            )
    with pytest.raises(InputError, match="zero_terminal_snr.* a flow ends in pure noise"):
        radiffuse.synthesize(
            **settings | {"diffusion": {"schedule": "flow", "zero_terminal_snr": False}}
        )


def test_the_pipeline_of_a_flow_asks_at_the_times_that_were_trained() -> None:
    """The network gets T s, s the standard deviation of the noise, in training and from the scheduler that is saved."""
    process = Diffusion(schedule="flow", prediction_type="v", shift=3.0)
    scheduler = scheduler_of(process)
    scheduler.set_timesteps(10)
    told = scheduler.timesteps
    assert torch.equal(told, (1000 * scheduler.sigmas[:-1]).long())
    asked: list[torch.Tensor] = []

    def unet(x: torch.Tensor, time: torch.Tensor, **_: object) -> SimpleNamespace:
        asked.append(time)
        return SimpleNamespace(sample=x)

    t = torch.tensor([0, 499, 999])
    denoiser = ConditionalDenoiser(unet, process)
    denoiser(torch.zeros(3, 1, 2, 2), t, torch.zeros(3, 4))
    s = (t + 1) / 1000
    torch.testing.assert_close(asked[0], 1000 * 3 * s / (1 + 2 * s))
    # A straight path from noise to an image that the network knows is gone to its end.
    x, image = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    noise = x
    for time in told:
        x = scheduler.step(noise - image, time, x).prev_sample
    torch.testing.assert_close(x, image, rtol=1e-4, atol=1e-2)


def test_every_stage_leaves_a_run(synthesizer: Path) -> None:
    run = Run.open(synthesizer)
    assert run.finished
    assert np.load(synthesizer / "samples.npy", allow_pickle=False).shape[1:] == (32, 32)
    for folder in (synthesizer, synthesizer / "encoder", synthesizer / "autoencoder"):
        rows = Run(folder).log()
        assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
        assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
        assert (folder / "report.html").stat().st_size > 0


def test_a_model_tells_no_path(synthesizer: Path) -> None:
    files = [p for p in synthesizer.rglob("model/**/*") if p.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert b"_name_or_path" not in content, path
        assert str(synthesizer.parent).encode() not in content, path


def test_a_run_that_was_stopped_in_any_stage_ends_the_same(
    classes: Path, synthesizer: Path, tmp_path: Path
) -> None:
    def weights(run: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(run)): path.read_bytes()
            for path in sorted(run.glob("*/model/*.safetensors"))
            + sorted(run.glob("model/*/*.safetensors"))
        }

    expected = weights(synthesizer)
    assert len(expected) >= 6
    for stage in ("encoder", "autoencoder", "."):
        # As after a kill past step 2 of the stage: nothing of what comes later is there.
        out = tmp_path / f"stopped-{stage.strip('.') or 'denoiser'}"
        shutil.copytree(synthesizer, out)
        later = {"encoder": ["encoder", "autoencoder", "."], "autoencoder": ["autoencoder", "."]}
        for name in later.get(stage, ["."]):
            shutil.rmtree(out / name / "model")
            shutil.rmtree(out / name / "state" / "step-00000004")
            if name != stage:
                shutil.rmtree(out / name / "state")
        reports = [out / name / "report.html" for name in ("encoder", "autoencoder")]
        for report in reports:  # is written after the model
            report.unlink()
        radiffuse.synthesize(**synthesize_settings(classes, out, synthesizer.parent / "cache"))
        assert weights(out) == expected, stage
        assert all(report.is_file() for report in reports), stage
    settings = synthesize_settings(classes, out, tmp_path / "cache")
    with pytest.raises(InputError, match="dino"):
        radiffuse.synthesize(**settings | {"dino": {"width": 128}})


def test_an_encoder_and_a_start_can_be_given(
    classes: Path, synthesizer: Path, tmp_path: Path
) -> None:
    settings = synthesize_settings(classes, tmp_path / "run", synthesizer.parent / "cache")
    settings |= {"encoder": synthesizer / "encoder/model", "from_": synthesizer / "model"}
    still = {"learning_rate": 0.0, "warmup_steps": 0, "steps": 1}
    settings["training"] = settings["training"] | still  # type: ignore[operator]
    for part, why in (("dino", "encoder is"), ("vae", "autoencoder is"), ("denoiser", "from_")):
        with pytest.raises(InputError, match=rf"{part}=.* takes no effect, since .*{why}"):
            radiffuse.synthesize(**settings)
        del settings[part]
    run = radiffuse.synthesize(**settings)
    assert not (run.folder / "encoder").exists()
    assert not (run.folder / "autoencoder").exists()
    from safetensors.torch import load_file

    name = "unet/diffusion_pytorch_model.safetensors"
    first, second = load_file(synthesizer / "model" / name), load_file(run.model / name)
    changed = {k for k in first if not torch.equal(first[k], second[k])}
    # The map of the embedding is drawn anew; all else is the start's.
    assert changed == {"encoder_hid_proj.weight", "encoder_hid_proj.bias"}


def test_changes_that_are_left_open_are_decided_and_recorded(
    classes: Path, synthesizer: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = synthesize_settings(classes, tmp_path, synthesizer.parent / "cache")
    for stage in ("dino", "vae"):
        short = settings[stage]["training"] | {"steps": 1}
        settings[stage] |= {"training": short, "augmentation": {"flip": None, "shading": None}}
    settings["training"] |= {"steps": 1}
    run = radiffuse.synthesize(**settings)
    for stage in ("dino", "vae"):
        recorded = run.config["settings"][stage]["augmentation"]
        assert (recorded["flip"], recorded["shading"]) == ([1], 0.8)
    radiffuse.synthesize(**settings)  # which is finished


def test_bad_input_ends_in_one_line(
    classes: Path, synthesizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    command = ["synthesize", str(classes), "--out", str(tmp_path / "run"), "--size", "32"]
    nowhere = line_of([*command, "--encoder", str(tmp_path / "nowhere")], capsys)
    assert "nowhere: does not exist" in nowhere
    for name in ("someone/dino", str(classes)):
        line = line_of([*command, "--encoder", name], capsys)
        assert "config.json and model.safetensors" in line
        assert "trains its own" in line
    assert "batch of 32" in line_of(command, capsys)
    encoder = str(synthesizer / "encoder/model")
    line = line_of([*command, "--encoder", encoder, "--autoencoder", encoder], capsys)
    assert "diffusion_pytorch_model.safetensors" in line
    line = line_of([*command, "--encoder", str(synthesizer / "model/unet")], capsys)
    assert "model.safetensors" in line
    broken = tmp_path / "broken"
    shutil.copytree(encoder, broken)
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    assert "no encoder that can be read" in line_of([*command, "--encoder", str(broken)], capsys)


def test_a_dry_run_tells_the_size_of_each_stage(
    classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from radiffuse.cli import main

    command = ["synthesize", str(classes), "--config", "synth-64", "--out", str(tmp_path / "run")]
    assert main([*command, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "denoiser     5.9 M parameters, 3600 steps of 32 images" in text
    assert "warm-up" not in text
    assert main([*command, "--vae.training.steps", "9", "--dry-run"]) == 0
    said = "--vae.training.steps 9 is no more than --vae.training.warmup-steps 50"
    assert said in capsys.readouterr().out
    assert main([*command, "--encoder", "facebook/dinov2-base", "--dry-run"]) == 0
    assert "encoder      from facebook/dinov2-base" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_an_autoencoder_of_another_width_is_refused(
    classes: Path, synthesizer: Path, tmp_path: Path
) -> None:
    settings = synthesize_settings(classes, tmp_path / "other", synthesizer.parent / "cache")
    other = settings | {"vae": settings["vae"] | {"latent_channels": 3}}  # type: ignore[operator]
    made = radiffuse.synthesize(**other)
    trained = {k: v for k, v in settings.items() if k not in ("dino", "vae", "denoiser")}
    mixed = trained | {
        "out": tmp_path / "mixed",
        "encoder": synthesizer / "encoder/model",
        "autoencoder": made.folder / "autoencoder/model",
        "from_": synthesizer / "model",
    }
    with pytest.raises(InputError, match="4 latent channels, the autoencoder has 3"):
        radiffuse.synthesize(**mixed)


def test_features_are_made_once_and_mended(classes: Path, tmp_path: Path) -> None:
    plan = Plan(2, ("image",), (), (32, 32))
    prepared = prepare(open_dataset(classes), plan, labelled=False, cache=tmp_path)
    calls: list[int] = []

    def compute(films: torch.Tensor) -> torch.Tensor:
        calls.append(len(films))
        return films.mean((2, 3)).repeat(1, 3)

    def made(weights: str = "a") -> np.ndarray:
        calls.clear()
        return np.array(features(prepared, compute, weights, tmp_path))

    first = made()
    assert first.shape == (16, 3)
    assert calls == [1, 16]  # one film tells the shape
    again = made()
    assert calls == [1]
    assert np.array_equal(first, again)
    path = next((tmp_path / "features").glob("*/rows.npy"))
    damaged = np.load(path, mmap_mode="r+")
    damaged[3] = 7
    damaged.flush()
    assert np.array_equal(made(), first)
    assert calls == [1, 16]
    made("b")
    assert calls == [1, 16]


def test_views_are_pure_and_lie_in_the_film(classes: Path, tmp_path: Path) -> None:
    plan = Plan(2, ("image",), (), (32, 32))
    prepared = prepare(open_dataset(classes), plan, labelled=False, cache=tmp_path)
    dino = DinoSettings(local_crops=3)

    def batches(batch_size: int = 4) -> ViewBatches:
        return ViewBatches(prepared, 32, dino, batch_size=batch_size, seed=0, indices=range(16))

    one = batches()(5)
    assert one.images.shape == (4, 2, 1, 32, 32)
    assert one.small.shape == (4, 3, 1, 16, 16)
    assert torch.equal(one.images, batches()(5).images)
    halves = [batches()(5, rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([h.small for h in halves]), one.small)
    assert not torch.equal(one.images[:, 0], one.images[:, 1])


def test_micro_batches_do_not_move_teacher_or_center() -> None:
    settings = DinoSettings(width=64, depth=1, patch=4, prototypes=16, momentum=0.5)
    torch.manual_seed(0)
    whole = DinoNetwork(settings, 16, 1)
    parts = DinoNetwork(settings, 16, 1)
    parts.load_state_dict(whole.state_dict())
    with torch.no_grad():
        for network in (whole, parts):
            for p in network.student.parameters():
                p.add_(0.1)
    large, small = torch.randn(4, 2, 1, 16, 16), torch.randn(4, 1, 1, 8, 8)
    start = {k: v.clone() for k, v in whole.teacher.state_dict().items()}
    for _ in range(2):
        whole(large, small, 4)
        for i in (0, 2):
            parts(large[i : i + 2], small[i : i + 2], 4)
    assert int(whole.step) == int(parts.step) == 1
    assert torch.allclose(whole.center, parts.center, atol=1e-6)
    assert float(whole.center.abs().max()) > 0
    for name, value in whole.teacher.state_dict().items():
        assert torch.equal(value, parts.teacher.state_dict()[name])
        if value.is_floating_point() and "mask" not in name:
            # Half way to the student, which moved by 0.1.
            assert torch.allclose(value, start[name] + 0.05, atol=1e-5), name
