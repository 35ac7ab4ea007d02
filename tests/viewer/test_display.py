"""What the page is sent: values, places, and what happens to scans that a browser could not hold."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from radiffuse.data.scan import Array, Scan
from radiffuse.viewer import display


def scan_of(shape: tuple[int, ...], dtype: type = np.int16) -> Scan:
    """Of any size, in no memory."""
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = (10, -20, 30)
    values = np.broadcast_to(np.zeros((), dtype), (1, *shape))
    return Scan(values, (2.0, 2.0, 3.0)[: len(shape)], affine if len(shape) == 3 else None)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2500, 3000), 1),
        ((5000, 6000), 1),
        ((9000, 100), 2),
        ((8000, 8000), 2),
        ((512, 512, 600), 1),
        ((512, 512, 2000), 2),
        ((2100, 10, 10), 2),
    ],
)
def test_only_what_a_browser_cannot_hold_is_thinned(shape: tuple[int, ...], expected: int) -> None:
    assert display.stride(scan_of(shape, np.uint8 if len(shape) == 2 else np.int16)) == expected


def test_steps_are_dropped_evenly_where_they_are_too_many() -> None:
    assert display.shown_steps(scan_of((64, 64, 64)), 50) == list(range(50))
    few = display.shown_steps(scan_of((512, 512, 400)), 20)
    assert few[-1] == 19
    assert 1 < len(few) <= 2**29 // (512 * 512 * 400)
    assert len(set(np.diff(few))) <= 2
    assert display.shown_steps(scan_of((512, 512, 600)), 1) == [0]


def volume() -> tuple[Array, Scan]:
    rng = np.random.default_rng(0)
    affine = np.array([[0, 0, 2.5, 1], [-1.0, 0, 0, 2], [0, 1.5, 0, 3], [0, 0, 0, 1]])
    scan = Scan(rng.integers(-900, 900, (1, 6, 5, 4)).astype(np.int16), (1.0, 1.5, 2.5), affine)
    return rng.random((1, 6, 5, 4), np.float32) * 0.2, scan


@pytest.mark.parametrize("k", [1, 2])
def test_a_thinned_volume_lies_where_the_whole_one_does(k: int) -> None:
    _, scan = volume()
    shown = nibabel.Nifti1Image.from_bytes(display.image(scan, 0, k))
    assert np.array_equal(np.asarray(shown.dataobj), scan.array[0, ::k, ::k, ::k])
    index = np.array([1, 1, 1, 1])
    assert np.allclose(shown.affine @ index, scan.affine @ [k, k, k, 1])


def test_a_map_keeps_its_values_within_half_a_step() -> None:
    values, scan = volume()
    span = display.span_of(values)
    shown = nibabel.Nifti1Image.from_bytes(display.layer(values, scan, 1, span))
    error = np.abs(shown.get_fdata() - values[0]).max()
    assert error <= (span[1] - span[0]) / 255 / 2 + 1e-6
    assert int(shown.header["intent_code"]) == 0


def test_labels_are_marked_as_labels_and_steps_are_the_fourth_axis() -> None:
    _, scan = volume()
    labels = np.arange(2 * 120, dtype=np.uint8).reshape(2, 6, 5, 4)
    shown = nibabel.Nifti1Image.from_bytes(display.layer(labels, scan, 1, (0, 255)))
    assert np.array_equal(np.moveaxis(np.asarray(shown.dataobj), -1, 0), labels)
    assert int(shown.header["intent_code"]) == 1002


@pytest.mark.parametrize(
    ("spacing", "shape", "expected"),
    [
        ((2.0, 2.0, 2.5), (3, 3, 3), (0.01, "mL")),
        ((0.5, 0.2), (3, 3), (0.1, "mm²")),
        (None, (3, 3), (1.0, "px")),
        (None, (3, 3, 3), (1.0, "voxels")),
    ],
)
def test_sizes_are_in_the_units_that_the_file_allows(
    spacing: tuple[float, ...] | None, shape: tuple[int, ...], expected: tuple[float, str]
) -> None:
    size, unit = display.unit(Scan(np.zeros((1, *shape)), spacing))
    assert (size, unit) == (pytest.approx(expected[0]), expected[1])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 0.9, (0.0, 1.0)), (0.0, 0.2, (0.0, 0.2)), (-1.0, 2.0, (-1.0, 2.0)), (0.0, 0.0, (0.0, 1.0))],
)  # fmt: skip
def test_maps_are_shown_over_a_range_that_holds_them(
    low: float, high: float, expected: tuple[float, float]
) -> None:
    assert display.span_of(np.array([low, high], np.float32)) == pytest.approx(expected)


def test_each_channel_has_a_window_of_its_own() -> None:
    """In that of CT a PET of 0 to 10 would be gray throughout."""
    _, ct = volume()
    pet = np.linspace(0, 10, ct.array.size).reshape(ct.array.shape)
    both = Scan(np.concatenate([ct.array, pet]).astype(np.float32), ct.spacing, ct.affine)
    found = display.described(both)
    assert found["hounsfield"] == [True, False]
    assert found["windows"] == [(-160, 240), pytest.approx((0.05, 9.95), abs=0.01)]
    two = Scan(np.stack([np.arange(100.0).reshape(10, 10), np.full((10, 10), 7.0)]))
    assert display.described(two)["windows"][1] == (7, 8)
