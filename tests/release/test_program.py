"""Exported programs give what the run gives: at export they are held against it, and here against the object."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import radiffuse
from radiffuse.config import Diffusion
from radiffuse.data.plan import Plan
from radiffuse.data.transform import image_to_plan
from radiffuse.errors import InputError, RunError
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.nets.pixel import PixelClassifier
from radiffuse.nets.probe import HeadConfig, ProbedNetwork
from radiffuse.nets.registry import load_network, save_network
from radiffuse.release import bundle, program
from radiffuse.release.card import card
from radiffuse.release.program import Traced, Write, trace, verify_program
from radiffuse.train.run import Run
from tiny_runs import chosen_run, finished_run, shake, tiny, volume_plan

FILM_PLAN = Plan(2, ("image",), ("background", "a", "b"), (16, 16))


def probed_run(folder: Path, kind: str) -> Path:
    """A run of probing or pixel whose weights are random."""
    finished_run(folder, FILM_PLAN)
    denoiser = tiny(2, 1).unet
    diffusion = Diffusion(num_train_timesteps=100)
    heads = [
        HeadConfig(kind, kind, (5, 20), ("middle", "level.0")) for kind in ("nonlinear", "linear")
    ]
    network = (
        PixelClassifier(denoiser, diffusion, 3, voters=2)
        if kind == "pixel"
        else ProbedNetwork(denoiser, diffusion, 3, heads, width=4)
    )
    shake(network, 2)
    save_network(network, folder / "model")
    return folder


def scores(run: Path, scan: np.ndarray, **geometry: object) -> tuple[np.ndarray, np.ndarray]:
    """The prepared image and the probabilities that the object gives on its grid."""
    segmenter = radiffuse.Segmenter.load(run, device="cpu", precision="32-true")
    image, _ = image_to_plan(
        segmenter._scan(scan, *geometry.values() or (None, None))[0], segmenter.plan
    )
    return image, segmenter.predict_proba(scan, **geometry)


@pytest.mark.slow
def test_a_film_through_onnx(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run = finished_run(tmp_path / "run", FILM_PLAN, seed=0)
    out = radiffuse.export(run=run, format="onnx", out=tmp_path / "onnx")
    film = np.random.default_rng(0).uniform(0, 255, (16, 16)).astype(np.float32)
    image, expected = scores(run, film)
    session = runtime.InferenceSession(out / "model.onnx")
    for count in (1, 4):
        (logits,) = session.run(["logits"], {"images": np.stack([image] * count)})
        shares = torch.from_numpy(logits).softmax(1).numpy()
        np.testing.assert_allclose(shares[-1], expected, atol=1e-5)
    told = json.loads((out / "export.json").read_text())
    assert told["input"]["shape"] == ["batch", 1, 16, 16]
    assert told["largest_difference"] < 1e-4
    assert {p.name for p in out.iterdir()} == {
        "model.onnx", "export.json", "plan.json", "README.md",
    }  # fmt: skip


def test_a_volume_through_torch_export(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", volume_plan(), seed=0)
    out = radiffuse.export(run=run, format="torch-export", out=tmp_path / "pt2")
    volume = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8)).astype(np.float32)
    image, expected = scores(run, volume, spacing=(1.0, 1.0, 1.0), affine=None)
    card = (out / "README.md").read_text()
    assert "`config.yaml` of the run" in card
    assert all(
        (out / name).is_file() for name in re.findall(r"`([\w.]+\.\w+)`(?! of the run)", card)
    )
    program = torch.export.load(out / "model.pt2").module()
    with torch.no_grad():
        logits = program(torch.from_numpy(np.stack([image] * 3)))
    np.testing.assert_allclose(logits[0].softmax(0).numpy(), expected, atol=1e-5)


@pytest.mark.slow
def test_a_volume_through_onnx(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    run = finished_run(tmp_path / "run", volume_plan(), seed=0)
    out = radiffuse.export(run=run, format="onnx", out=tmp_path / "onnx")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 1, 8, 8, 8)).astype(np.float32)
    (logits,) = runtime.InferenceSession(out / "model.onnx").run(None, {"images": images})
    expected = load_network(run / "model")(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head"), [("probe", None), ("probe", "linear"), ("pixel", None)])
def test_frozen_features_keep_their_noise(kind: str, head: str | None, tmp_path: Path) -> None:
    run = probed_run(tmp_path / "run", kind)
    traced = trace(Run.open(run), head)
    module = traced.program.module()
    assert verify_program(traced, module, kind) < 1e-5
    other = torch.rand((1, 1, 16, 16), generator=torch.Generator().manual_seed(5)) * 2 - 1
    network = load_network(run / "model")
    with torch.no_grad():
        expected = network(other) if kind == "pixel" else network(other, (head or "nonlinear",))[0]
        torch.testing.assert_close(module(other), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["probe", "pixel"])
def test_frozen_features_through_onnx(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run = probed_run(tmp_path / "run", kind)
    out = radiffuse.export(run=run, format="onnx", out=tmp_path / "onnx")
    assert json.loads((out / "export.json").read_text())["largest_difference"] < 1e-4


def test_what_a_choice_does_beyond_its_networks_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its members may have other reasons for one grid; views and steps are those of ``predict`` alone."""

    def traced(run: Run, head: str | None) -> Traced:  # tracing itself takes many seconds
        return Traced(None, run.plan, (2,), (), (), tuple(program.left_out(run, steps=True)))

    def write(run: Run, head: str | None) -> Write:
        return lambda out: program._describe(out, traced(run, head), "torch-export", 0.0, {})

    monkeypatch.setattr(program, "torch_program", write)
    plan = replace(FILM_PLAN, mirror=(1,), postprocess=("1=keep:2",))
    run = chosen_run(tmp_path / "run", plan, replace(plan, reasons={"grid": "so"}), tta=("mirror",))
    out = radiffuse.export(run=run, format="torch-export", out=tmp_path / "program")
    named = [
        "the average of views (mirror)",
        "the steps after segmentation (a: the 2 largest pieces are kept)",
    ]
    assert json.loads((out / "export.json").read_text())["left_out"] == named
    said = capsys.readouterr().err
    for what in named:
        assert f"- {what}" in (out / "README.md").read_text()
        assert f"torch-export leaves out {what}" in said
    assert f"- {named[0]}" in bundle.usage(Run.open(run))
    assert "after segmentation" not in bundle.usage(Run.open(run))
    film = np.random.default_rng(0).uniform(0, 255, (16, 16)).astype(np.float32)
    image, expected = scores(run, film)
    network, image = program.one_pass_network(Run.open(run)), torch.from_numpy(image)[None]
    with torch.no_grad():
        one, other = network(image).softmax(1), network(image.flip(3)).softmax(1).flip(3)
    np.testing.assert_allclose(((one + other) / 2)[0].numpy(), expected, atol=1e-5)
    assert abs(one[0].numpy() - expected).max() > 1e-3


def test_a_choice_with_a_pixel_classifier_takes_one_image_at_a_time(tmp_path: Path) -> None:
    run = chosen_run(tmp_path / "run", FILM_PLAN, FILM_PLAN)
    shutil.rmtree(run / "members" / "part-1")
    probed_run(run / "members" / "part-1", "pixel")
    assert trace(Run.open(run)).batches == (1,)


def test_windows_of_several_networks_are_named(tmp_path: Path) -> None:
    """``predict`` blends the logits of each network, and its mean comes last; a program gives the mean alone."""
    plan = volume_plan()
    run = Run.open(chosen_run(tmp_path / "two", plan, plan))
    (told,) = program.left_out(run, steps=True)
    assert told == "the blending of windows of each network by itself, before the mean (2 networks)"
    assert f"- {told}" in program.usage(run)
    assert f"- {told}" in bundle.usage(run)
    for name, plans in {"one": (plan,), "films": (FILM_PLAN, FILM_PLAN)}.items():
        assert not program.left_out(Run.open(chosen_run(tmp_path / name, *plans)), steps=True)


def test_a_card_says_that_networks_prepare_images_differently(tmp_path: Path) -> None:
    other = replace(FILM_PLAN, size=(24, 24))
    for name, plans, ways in (
        ("alike", (FILM_PLAN, replace(FILM_PLAN, reasons={"grid": "so"})), 0),
        ("apart", (FILM_PLAN, other, other), 2),
    ):
        text = card(Run.open(chosen_run(tmp_path / name, *plans)))
        assert (f"prepare images in {ways} ways" in text) == (ways > 0)
        assert ("prepare images in" in text) == (ways > 0)


def test_a_card_names_the_steps_after_segmentation_and_the_choice(tmp_path: Path) -> None:
    for number, (postprocess, said) in enumerate(((("1=keep:2",), 1), (("none",), 0), ((), 0))):
        plan = replace(FILM_PLAN, postprocess=postprocess)
        text = card(Run.open(chosen_run(tmp_path / str(number), plan)))
        after = f"- after segmentation:\n  - {plan.classes[1]}: the 2 largest pieces are kept\n"
        assert (text.count(after), text.count("after segmentation")) == (said, said)
        assert "is in `choice.json` of the run" in text
        assert "none was measured in this run\n- a test on cases of your own" in text


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        (
            replace(FILM_PLAN, crop="nonzero", resize="fit", grid=(24, 20)),
            [
                "cropped first, to the box of the pix",
                "percentiles 0.5 and 99.5 of each",
                "fitted into 24 x 20 pix",
            ],
        ),
        (FILM_PLAN, ["percentiles 0.5 and 99.5 of each", "stretched to 16 x 16 pixels"]),
        (
            replace(volume_plan(), crop="body"),
            ["cropped first, to the box of the body", "intensity -1 to 1", "resampled, linearly"],
        ),
    ],
)
def test_a_card_says_how_scans_are_prepared_in_their_order(
    plan: Plan, steps: list[str], tmp_path: Path
) -> None:
    run = Run.open(finished_run(tmp_path / "run", plan))
    text = card(run)
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert ("cropped" in text) == (plan.crop is not None)
    assert ("windows of the input's size" in program.usage(run)) == (not plan.whole)


def test_a_program_that_differs_is_refused() -> None:
    images = torch.zeros(1, 1, 8, 8)
    traced = Traced(None, FILM_PLAN, (1,), (images,), (torch.ones(1, 3, 8, 8),))
    with pytest.raises(InputError, match=r"ONNX: differs from the network by 0\.01"):
        verify_program(traced, lambda x: torch.full((1, 3, 8, 8), 1.01), "ONNX")
    with pytest.raises(InputError, match="differs"):
        verify_program(traced, lambda x: torch.full((1, 3, 8, 8), torch.nan), "ONNX")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"classes": ["background", "a"]}, "names 2 classes, the network tells 3 apart"),
        ({"size": [15, 16]}, "has size 15x16, the network takes multiples of"),
        (
            {"spatial_dims": 3, "size": [16, 16, 16], "spacing": [1, 1, 1]},
            "is for 3D images, the network for 2D",
        ),
    ],
)
def test_a_plan_that_was_edited_is_not_exported(
    change: dict[str, object], word: str, tmp_path: Path
) -> None:
    run = finished_run(tmp_path / "run", FILM_PLAN)
    path = run / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match=rf"plan\.json: .*{word}"):
        radiffuse.export(run=run, format="torch-export", out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_is_no_program(pretrained: Path, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", FILM_PLAN)
    unet = tiny(2, 3).unet
    save_network(
        MaskDenoiser.from_denoiser(unet, classes=3, generator=torch.Generator()), run / "model"
    )
    with pytest.raises(InputError, match="draws masks from noise in several steps"):
        radiffuse.export(run=run, format="onnx", out=tmp_path / "x")
    with pytest.raises(RunError, match="is no segmentation run"):
        radiffuse.export(run=pretrained, format="torch-export", out=tmp_path / "x")
    plain = finished_run(tmp_path / "plain", FILM_PLAN)
    with pytest.raises(InputError, match="^head: takes no effect, since the run has no heads"):
        radiffuse.export(run=plain, format="torch-export", head="linear", out=tmp_path / "x")
    with pytest.raises(InputError, match="the run itself"):
        radiffuse.export(run=run, out=run)
    with pytest.raises(InputError, match="only the format pretrained is uploaded"):
        radiffuse.export(run=run, format="onnx", push="me/mine", out=tmp_path / "x")
    with pytest.raises(InputError, match="no head of that name"):
        trace(Run.open(probed_run(tmp_path / "probe", "probe")), "cubic")
