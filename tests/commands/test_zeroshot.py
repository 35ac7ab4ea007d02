"""Zero-shot segmentation: what attention holds, the rule for lungs, and the folder that is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import radiffuse
from radiffuse.config import Network, resolve_network
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError, RadiffuseError
from radiffuse.nets.registry import save_network
from radiffuse.nets.unet import UNet
from radiffuse.synthesis.lungs import name_lungs
from radiffuse.synthesis.segments import recorded
from radiffuse.synthesis.synthesizer import load_synthesizer
from radiffuse.system.files import write_atomic
from radiffuse.train.start_run import start_run
from tiny_runs import shake


def test_attention_is_recorded_and_nothing_is_changed(synthesizer: Path) -> None:
    """Oracle: softmax sums to 1 over the places."""
    denoiser = load_synthesizer(synthesizer / "model", 1).denoiser
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 16, 16, generator=generator)
    told, t = torch.randn(2, denoiser.width, generator=generator), torch.tensor([300, 300])
    with torch.no_grad():
        plain = denoiser(x, t, told)
        with recorded(denoiser) as own:
            watched = denoiser(x, t, told)
        after = denoiser(x, t, told)
    assert torch.allclose(plain, watched, atol=1e-5)
    assert torch.equal(plain, after)
    assert own
    for attention in own:
        assert attention.shape[1] == attention.shape[2] > 1
        assert torch.allclose(attention.sum(2), torch.ones(attention.shape[:2]), atol=1e-5)
        assert float(attention.std()) > 0


def test_the_recorded_attention_is_the_one_that_is_used() -> None:
    from diffusers.models.attention_processor import Attention

    from radiffuse.synthesis.segments import _Recorder

    torch.manual_seed(0)
    layer = Attention(query_dim=8, heads=2, dim_head=4)
    maps: list[torch.Tensor] = []
    states = torch.randn(1, 5, 8)
    layer.set_processor(_Recorder(layer.processor, maps))
    with torch.no_grad():
        layer(states)
        query, key = (layer.head_to_batch_dim(f(states)) for f in (layer.to_q, layer.to_k))
        expected = layer.get_attention_scores(query, key).mean(0)
    assert torch.allclose(maps[0][0], expected, atol=1e-6)


def chest(shape: tuple[int, int] = (96, 96)) -> tuple[np.ndarray, np.ndarray]:
    """A film of two dark lungs in a bright body in black air, and its segments."""
    y, x = np.mgrid[: shape[0], : shape[1]] / shape[0]
    body = (x - 0.5) ** 2 / 0.2 + (y - 0.5) ** 2 / 0.24 < 1
    lungs = [(x - c) ** 2 / 0.012 + (y - 0.45) ** 2 / 0.06 < 1 for c in (0.3, 0.7)]
    segments = body.astype(int) + lungs[0] + lungs[1]
    film = np.where(body, 200.0, 0.0)
    film[lungs[0] | lungs[1]] = 60.0
    return film, segments


def test_lungs_are_two_dark_mirrored_regions() -> None:
    film, segments = chest()
    assert np.array_equal(name_lungs(segments, film), segments == 2)
    parted = segments.copy()
    parted[:, 48:][parted[:, 48:] == 2] = 7
    assert np.array_equal(name_lungs(parted, film), segments == 2)
    # Bright instead of dark, one instead of two, or air alone: nothing fits.
    bright = np.where(segments == 2, 250.0, film * 0.5)
    assert not name_lungs(segments, bright).any()
    single = segments.copy()
    single[:, 48:][single[:, 48:] == 2] = 1
    assert not name_lungs(single, film).any()
    assert not name_lungs(np.zeros((96, 96), int), film).any()


@pytest.mark.parametrize("method", ["diffseg", "clusters"])
def test_masks_and_scores_are_written(method: str, synthesizer: Path, tmp_path: Path) -> None:
    from radiffuse.phantoms import write_dataset

    films = tmp_path / "films"
    write_dataset("chest", films, count=3, labelled=True, seed=5, size=(40, 48))
    machine = {"accelerator": "cpu", "precision": "32-true"}
    options = {"run": synthesizer, "data": films, "method": method, "machine": machine}
    out = radiffuse.zeroshot(out=tmp_path / "a", **options)
    again = radiffuse.zeroshot(out=tmp_path / "b", **options)
    with pytest.raises(InputError, match="is not empty"):  # it would overwrite the films
        radiffuse.zeroshot(out=films / "images", **options)
    with pytest.raises(InputError, match="holds masks with seed = 0, not 1"):
        radiffuse.zeroshot(out=again, seed=1, **options)
    masks = sorted(p.name for p in out.glob("*.png"))
    assert len(masks) == 3
    for name in masks:
        with Image.open(out / name) as mask, Image.open(out / "segments" / name) as found:
            assert mask.size == found.size == (48, 40)
            assert set(np.unique(np.asarray(mask))) <= {0, 1}
        for part in (name, f"segments/{name}"):
            assert (out / part).read_bytes() == (again / part).read_bytes()
    with (out / "zeroshot.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row in rows:
        assert 0 <= float(row["dice_rule"]) <= 1
        assert 0 <= float(row["dice_matched"]) <= 1
    assert (out / "classes.json").is_file()
    assert (out / "clusters.json").is_file() == (method == "clusters")


@pytest.mark.parametrize(
    ("source", "options"), [("pre", {"noises": 3}), ("synthesizer", {"features": "encoder"})]
)
def test_any_network_can_be_the_source(
    source: str, options: dict[str, object], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Clusters are kept: a film that comes later is segmented by those of the first, whatever it is."""
    from radiffuse.phantoms import write_dataset

    films, out = tmp_path / "films", tmp_path / "out"
    write_dataset("chest", films, count=2, labelled=True, seed=5, size=(40, 48))
    run = films_run(tmp_path / "pre") if source == "pre" else request.getfixturevalue(source)
    given = {"run": run, "data": films, "out": out, "machine": {"accelerator": "cpu"}, **options}
    given["clusters"] = 4
    radiffuse.zeroshot(**given)
    clusters = json.loads((out / "clusters.json").read_text())
    assert len(clusters["centers"]) == len(clusters["lung"]) == 4
    first = sorted(out.glob("segments/*"))
    before = [path.read_bytes() for path in first]
    write_dataset("chest", films, count=3, labelled=True, seed=5, size=(40, 48))
    radiffuse.zeroshot(**given)
    assert json.loads((out / "clusters.json").read_text()) == clusters
    assert len(list(out.glob("segments/*"))) == 3
    assert [path.read_bytes() for path in first] == before
    with pytest.raises(InputError, match="holds masks with clusters = 4, not 3"):
        radiffuse.zeroshot(**given | {"clusters": 3})
    (out / "clusters.json").write_text(json.dumps({"centers": [[0.0]]}))
    next(iter(out.glob("*.png"))).unlink()
    with pytest.raises(InputError, match=r"clusters\.json: lacks border"):
        radiffuse.zeroshot(**given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 9}, r"level=9: .* has 4"),
        ({"timestep": 1000}, r"timestep=1000: the run was trained on 1000 timesteps"),
        ({"features": "encoder"}, r'features="encoder": .* has no encoder'),
        ({"method": "diffseg"}, "is no synthesizer"),
    ],
)
def test_what_a_source_cannot_give_is_refused(
    options: dict[str, object], message: str, films: Path, tmp_path: Path
) -> None:
    given = {"run": "films-64", "data": films, "machine": {"accelerator": "cpu"}}
    with pytest.raises(RadiffuseError, match=message):
        radiffuse.zeroshot(out=tmp_path / "out", **given, **options)
    assert not (tmp_path / "out").exists()


def films_run(folder: Path) -> Path:
    """A denoiser of films that nobody trained."""
    config = Network(width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8)
    unet = UNet(resolve_network(config, spatial_dims=2, in_channels=1, out_channels=1))
    shake(unet, seed=2)
    with start_run(folder, "pretrain", {"objective": "ddpm"}) as run:
        plan = Plan(
            2, ("image",), (), (32, 32), None, resize="fit", intensity="percentiles", low=1, high=99
        )
        write_atomic(folder / "plan.json", plan.to_json())
        save_network(unet, run.model)
    return folder


def test_dice_counts_overlap_and_leaves_empty_pairs_out() -> None:
    from radiffuse.commands.zeroshot import _dice

    a, b = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 1]], bool)
    assert _dice(a, b) == pytest.approx(2 / 5)
    assert np.isnan(_dice(a & False, b & False))
