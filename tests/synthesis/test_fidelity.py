"""Measures of generated images, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from radiffuse.synthesis import fidelity as generation


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def whitened(n: int, d: int, seed: int = 0) -> np.ndarray:
    """A sample whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = normal(n, d, seed)
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T


@pytest.mark.parametrize("n", [5, 300])
def test_frechet_of_a_set_with_itself_is_zero(n: int) -> None:
    x = normal(n, 8)
    assert generation.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_between_shifted_unit_gaussians_is_the_squared_shift() -> None:
    shift = np.array([1.0, -2.0, 0.5, 0.0])
    a, b = whitened(200, 4), whitened(150, 4, seed=1) + shift
    assert generation.frechet_distance(a, b) == pytest.approx((shift**2).sum(), rel=1e-9)


def test_frechet_between_scaled_gaussians() -> None:
    """For N(0, I) and N(0, s^2 I) it is d (1 - s)^2."""
    distance = generation.frechet_distance(whitened(99, 6), 3 * whitened(80, 6, seed=2))
    assert distance == pytest.approx(6 * (1 - 3) ** 2, rel=1e-9)


def test_frechet_agrees_with_the_matrix_root_for_correlated_features() -> None:
    from scipy.linalg import sqrtm

    a, b = normal(60, 5) @ normal(5, 5, 3), normal(70, 5, 4) @ normal(5, 5, 5) + 0.3
    ca, cb = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert generation.frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-6)


def test_kernel_distance_equals_the_double_sum() -> None:
    a, b = normal(4, 3), normal(5, 3, 1)

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = [
        np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j])
        for s in (a, b)
    ]
    expected = sum(within) - 2 * np.mean([k(x, y) for x in a for y in b])
    assert generation.kernel_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_of_one_distribution_is_zero_on_average() -> None:
    values = [
        generation.kernel_distance(normal(30, 4, s), normal(30, 4, 1000 + s)) for s in range(200)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    assert min(values) < 0


def test_identical_sets_have_full_precision_recall_and_coverage() -> None:
    x = normal(40, 3)
    found = generation.measure(x, x)
    assert found["precision"] == found["recall"] == found["coverage"] == 1


def test_sets_far_apart_have_none() -> None:
    found = generation.measure(normal(40, 3), normal(40, 3, 1) + 100)
    assert found["precision"] == found["recall"] == found["coverage"] == found["density"] == 0


def test_a_collapsed_generator_is_precise_and_recalls_nothing() -> None:
    real = normal(200, 2)
    fake = np.zeros((50, 2)) + 1e-3 * normal(50, 2, 1)
    found = generation.measure(real, fake)
    assert found["precision"] == 1
    assert found["recall"] < 0.05
    assert found["coverage"] < 0.2


def test_radii_are_distances_to_the_kth_other_point() -> None:
    x = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert generation.neighbor_radii(x, 1).tolist() == [1, 1, 2, 4]
    assert generation.neighbor_radii(x, 2).tolist() == [3, 2, 3, 6]
    with pytest.raises(ValueError, match="need more than 4"):
        generation.neighbor_radii(x, 4)


def test_density_counts_balls_and_coverage_counts_hits() -> None:
    real = np.array([[0.0], [1.0], [3.0]])  # radii of k = 1: 1, 1, 2
    fake = np.array([[0.5], [2.0], [9.0]])
    assert generation.density_of(fake, real, 1).tolist() == [2, 2, 0]
    assert generation.covered(fake, real, 1).tolist() == [True, True, True]
    assert generation.covered(fake[2:], real, 1).tolist() == [False, False, False]


def test_the_corrected_frechet_distance_is_that_of_the_distributions_and_inside_its_interval() -> (
    None
):
    """Closed form for N(0, I) and N(m, S), S diagonal: |m|^2 + sum (sqrt(s) - 1)^2; the plain value is far above it."""
    width = 32
    shift, spread = 0.1, np.linspace(0.7, 1.3, width)
    truth = width * shift**2 + float(((np.sqrt(spread) - 1) ** 2).sum())
    corrected, plain = [], []
    for seed in range(6):
        real, fake = (
            normal(200, width, seed),
            normal(150, width, 90 + seed) * np.sqrt(spread) + shift,
        )
        found = generation.measure_with_intervals(real, fake, draws=20)["frechet"]
        assert found.low <= found.mean <= found.high
        corrected.append(found.mean)
        plain.append(generation.frechet_distance(real, fake))
    assert min(plain) > 2 * truth
    assert float(np.mean(corrected)) == pytest.approx(truth, rel=1 / 3)


def test_parts_are_of_patients_where_their_images_are_copies() -> None:
    """Each patient three times: the bias is that of the patients, which parts of images could not take away."""
    real, fake = (np.repeat(normal(100, 8, seed), 3, axis=0) for seed in (0, 1))
    patients = np.repeat(np.arange(100), 3).tolist()
    alone = generation.without_bias(real, fake)
    assert abs(generation.without_bias(real, fake, patients, patients)) < 0.5 * alone
    assert (
        generation.without_bias(real[:3], fake[:3], patients[:3], patients[:3]) >= 0
    )  # one patient


def test_frechet_interval_covers_the_truth_in_most_samples() -> None:
    """For N(0, I) and N(m, I) the truth is |m|^2."""
    shift = np.array([1.0, 0.0, 0.0])
    hits = 0
    for seed in range(40):
        found = generation.measure_with_intervals(
            normal(80, 3, seed), normal(80, 3, 500 + seed) + shift, draws=100
        )["frechet"]
        hits += found.low <= 1 <= found.high
    assert hits >= 34


def test_kernel_interval_of_one_distribution_holds_zero_and_copies_do_not_move_it() -> None:
    found = generation.measure_with_intervals(normal(60, 4), normal(60, 4, 1), draws=200)["kernel"]
    assert found.low < 0 < found.high


def test_intervals_by_patient_are_wider_where_images_of_a_patient_agree() -> None:
    patients = np.repeat(np.arange(12), 8)
    real = normal(12, 4)[patients] + 0.05 * normal(96, 4, 1)
    fake = normal(96, 4, 2)
    alone = generation.measure_with_intervals(real, fake)["recall"]
    grouped = generation.measure_with_intervals(real, fake, real_groups=patients.tolist())["recall"]
    assert grouped.high - grouped.low > alone.high - alone.low


def test_halves_share_no_patient_and_have_one_size() -> None:
    groups = ["a"] * 7 + ["b"] * 2 + ["c", "d", "e"]
    for first, second in generation.split_halves(groups, 6):
        assert len(first) == len(second) > 0
        assert not {groups[i] for i in first} & {groups[i] for i in second}
    with pytest.raises(ValueError, match="two patients"):
        generation.split_halves(["a", "a"], 1)


def test_the_floor_compares_at_one_size() -> None:
    real, fake = normal(80, 3), normal(30, 3, 1) + 2
    floor = generation.real_floor(real, fake, list(range(80)), halvings=3)
    assert floor.size == 30
    assert (floor.real["frechet"] < floor.fake["frechet"]).all()
    assert (floor.real["precision"] > floor.fake["precision"]).all()


@pytest.mark.parametrize(
    ("images", "width", "words"),
    [(500, 100, ""), (499, 100, "few"), (90, 100, "singular")],
)
def test_few_images_are_pointed_out(images: int, width: int, words: str) -> None:
    warning = generation.few_images(images, width)
    assert words in warning
    assert bool(words) == bool(warning)


def test_density_counts_balls_in_units_of_k() -> None:
    """Real images at 0 to 6: to the second neighbor it is 1 inside and 2 at the ends (Naeem et al. 2020, eq. 4)."""
    real = np.arange(7.0)[:, None]
    fake = np.array([[3.0], [2.0], [0.5], [9.0]])
    # Around 3 the balls of 2, 3, 4; around 2 those of 0, 1, 2, 3; around 0.5 those of 0 and 1; around 9 none.
    np.testing.assert_allclose(generation.density_of(fake, real, 2), [3 / 2, 4 / 2, 2 / 2, 0])
    # Covered are the real images whose ball holds a fake one: all but 5, and 6 reaches to 4 alone.
    assert generation.covered(fake, real, 2).tolist() == [
        True,
        True,
        True,
        True,
        True,
        False,
        False,
    ]
