"""Figures hold what they were given, and leave matplotlib's settings alone."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from radiffuse.reports.figures import (
    class_bars,
    label_efficiency,
    loss_curves,
    paired_dots,
    running_mean,
    validation_scores,
)
from radiffuse.reports.html import Report
from radiffuse.reports.parts import scores_section
from radiffuse.reports.pictures import OverlayCase, overlays, sample_grid, to_uint8
from radiffuse.reports.style import moved_apart

pytestmark = pytest.mark.usefixtures("drawn")


def texts(figure: Figure) -> list[str]:
    """Every text of a figure; drawing it must not fail."""
    figure.savefig(io.BytesIO(), format="svg")
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def study(methods=("scratch", "finetune"), draws: int = 3) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        [
            (m, n, d, f"c{c}", f"p{c // 2}", 0.6 + 0.02 * n + 0.1 * i + generator.normal(0, 0.02))
            for i, m in enumerate(methods)
            for n in (1, 2, 10)
            for d in range(draws)
            for c in range(6)
        ],
        columns=["method", "labels", "draw", "case", "group", "dice"],
    )


def test_label_efficiency_draws_the_mean_of_every_budget() -> None:
    table = study()
    figure = label_efficiency(table)
    axes = figure.axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    expected = table[table["method"] == "scratch"].groupby("labels")["dice"].mean()
    np.testing.assert_allclose(lines[0].get_ydata(orig=False), expected)
    shown = texts(figure)
    assert {"scratch", "finetune", "1", "2", "10", "labelled images"} <= set(shown)


def test_label_efficiency_takes_one_row_per_draw() -> None:
    table = study().groupby(["method", "labels", "draw"])["dice"].mean().reset_index()
    assert "finetune" in texts(label_efficiency(table))


def test_a_single_budget_has_a_row_for_each_method_and_no_line_along_budgets() -> None:
    table = study(methods=("scratch", "finetune", "pixel"))
    table = table[table["labels"] == 2]
    figure = label_efficiency(table)
    axes = figure.axes[0]
    shown = texts(figure)
    assert axes.get_xscale() == "linear"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "scratch",
        "finetune",
        "pixel",
    ]
    assert "labelled images" not in shown
    assert "Dice with 2 labels" in shown
    means = table.groupby("method", sort=False)["dice"].mean()
    marks = [line for line in axes.lines if line.get_marker() != "."]
    draws = [line for line in axes.lines if line.get_marker() == "."]
    for row, (name, mean) in enumerate(means.items()):
        assert marks[row].get_xydata().tolist() == [[pytest.approx(mean), row]]
        each = table[table["method"] == name].groupby("draw")["dice"].mean()
        np.testing.assert_allclose(draws[row].get_xdata(), each)
        assert f"{mean:.3f}" in shown


def test_label_efficiency_with_a_single_budget_and_method() -> None:
    table = study(methods=("a$b$_{",), draws=1)
    assert "a$b$_{" in texts(label_efficiency(table[table["labels"] == 1]))


def test_loss_curves_show_what_the_log_holds() -> None:
    log: list[dict] = [
        {"step": s, "loss": 1 / s, "loss_q0": 4 / s, "loss_q1": 3 / s, "loss_q2": 2 / s}
        for s in range(1, 50)
    ]
    log += [{"step": s, "validation": {"dice": s / 100, "hd95": 9.0}} for s in (10, 50, 30)]
    assert len(loss_curves(log).axes) == 3
    shown = texts(loss_curves(log))
    assert "Validation Dice peaks at 0.500, step 50" in shown
    assert {"1st (least noise)", "3rd"} <= set(shown)
    assert "4th" not in shown
    assert len(loss_curves([{"step": 1, "loss": 0.5}]).axes) == 1


@pytest.mark.parametrize(
    "log", [[], [{"step": 1, "validation": {"dice": 0.5}}], [{"step": 1, "loss": None}]]
)
def test_loss_curves_need_a_loss(log: list) -> None:
    with pytest.raises(ValueError, match="loss"):
        loss_curves(log)


def test_validation_scores_skip_distances_and_nan() -> None:
    log = [{"step": 1, "validation": {"dice": 0.5, "hd95": 3.0, "iou": float("nan"), "nsd": None}}]
    assert validation_scores(log) == {"dice": [(1, 0.5)]}


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.integers(1, 40))
def test_running_mean_equals_the_plain_loop(values: list[float], width: int) -> None:
    numbers = np.array(values)
    expected = [
        numbers[max(0, i - (width - 1) // 2) : i + width // 2 + 1].mean()
        for i in range(len(values))
    ]
    np.testing.assert_allclose(running_mean(numbers, width), expected, atol=1e-9)


def test_running_mean_skips_nan() -> None:
    result = running_mean(np.array([1.0, np.nan, 3.0, np.nan, np.nan]), 3)
    np.testing.assert_array_equal(result, [1.0, 2.0, 3.0, 3.0, np.nan])


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.floats(0.01, 2))
def test_labels_moved_apart_keep_their_gap_and_order(positions: list[float], gap: float) -> None:
    moved = np.array(moved_apart(positions, gap))
    order = np.argsort(positions, kind="stable")
    assert (np.diff(moved[order]) >= gap * (1 - 1e-6) - 1e-9).all()
    assert moved.mean() == pytest.approx(np.mean(positions), abs=1e-6)


def test_spread_leaves_distant_labels_alone() -> None:
    assert moved_apart([3.0, 1.0, 2.0], 0.5) == [3.0, 1.0, 2.0]


def test_paired_dots_say_how_many_gain() -> None:
    figure = paired_dots([0.9, 0.8, 0.7], [0.5, 0.85, 0.6], names=("finetune", "scratch"))
    assert "finetune is above scratch in 2 of 3 cases" in texts(figure)
    drawn = figure.axes[0].lines[1].get_ydata()
    np.testing.assert_allclose(drawn, [0.8, 0.7, 0.9])


def test_class_bars_name_best_and_worst_and_skip_uncounted() -> None:
    summary = pd.DataFrame(
        {
            "class": ["lung", "heart", "rib", "all"],
            "metric": "dice",
            "mean": [0.9, 0.5, np.nan, 0.7],
            "low": [0.8, 0.4, np.nan, 0.6],
            "high": [0.95, 0.6, np.nan, 0.8],
        }
    )
    shown = texts(class_bars(summary))
    assert "lung is found best, heart worst" in shown
    assert "0.900" in shown
    assert "rib" not in shown


def test_a_page_of_cases_that_show_no_class_has_no_bars(tmp_path: Path) -> None:
    """As where all held-out patients are healthy, or their labels are to be ignored."""
    table = pd.DataFrame({"case": ["a", "a", "b", "b"], "class": ["x", "y"] * 2, "dice": np.nan})
    table.to_csv(tmp_path / "cases.csv", index=False)
    report = Report("run")
    scores_section(report, tmp_path)
    assert "each class" not in report.render()
    table.loc[0:1, "dice"] = [0.5, 0.7]
    table.to_csv(tmp_path / "cases.csv", index=False)
    scores_section(report, tmp_path)
    assert "each class" in report.render()


def overlay(**changes) -> OverlayCase:
    image = np.random.default_rng(0).integers(0, 255, (20, 24)).astype(np.uint8)
    truth = np.zeros((20, 24), int)
    truth[4:12, 0:9] = 1
    values = {"image": image, "truth": truth, "prediction": np.roll(truth, 2, 0), "dice": 0.75}
    return OverlayCase("best", "case <1>", **{**values, **changes})


def test_overlays_show_both_outlines() -> None:
    figure = overlays([overlay(), overlay(dice=float("nan"))])
    assert len(figure.axes) == 4
    assert len(list(figure.axes[2].collections)) == 2
    shown = texts(figure)
    assert "best · Dice 0.750\ncase <1>" in shown
    assert {"truth", "prediction"} <= set(shown)


def test_overlays_take_empty_full_and_ignored_masks() -> None:
    full, nothing = np.ones((20, 24), int), np.zeros((20, 24), int)
    ignored = np.full((20, 24), 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts(overlays([overlay(truth=full, prediction=nothing), overlay(truth=ignored)]))


def test_overlays_need_a_case() -> None:
    with pytest.raises(ValueError, match="at least one"):
        overlays([])


def test_sample_grid_places_every_image() -> None:
    images = np.stack([np.full((6, 8), 10 * i, np.uint8) for i in range(1, 6)])
    mosaic = sample_grid(images, columns=3).axes[0].images[0].get_array()
    assert mosaic.shape == (2 * 6 + 1, 3 * 8 + 2, 4)
    assert (mosaic[7:, 9:17, 0] == 50).all()
    assert (mosaic[7:, 18:, 3] == 0).all()
    assert (mosaic[..., 3] == 255).sum() == 5 * 48


@pytest.mark.parametrize(
    "images", [np.zeros((0, 4, 4), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4))]
)
def test_sample_grid_refuses_what_is_no_stack_of_images(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        sample_grid(images)


def test_images_are_stretched_to_bytes() -> None:
    image = np.linspace(-1, 1, 200).reshape(10, 20)
    assert to_uint8(image).min() == 0
    assert to_uint8(image).max() == 255
    assert to_uint8(np.full((3, 3), np.nan)).sum() == 0
    assert to_uint8(np.full((3, 3), 7.0)).dtype == np.uint8


def test_settings_of_matplotlib_are_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    texts(label_efficiency(study()))
    assert dict(matplotlib.rcParams) == before
