"""The tests of significance against SciPy, closed forms and simulation."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, permutation_test

from embed_assets.evaluation.significance import (
    PLANNED_DEVIATION,
    bootstrap_interval,
    cluster_sums,
    minimum_detectable_gain,
    randomisation_p,
    standard_error,
)


def scipy_p(differences: np.ndarray, resamples: float = np.inf) -> float:
    result = permutation_test(
        (differences, np.zeros_like(differences)),
        lambda first, second, axis: np.mean(first - second, axis=axis),
        permutation_type="samples",
        alternative="greater",
        n_resamples=resamples,
        vectorized=True,
        rng=np.random.default_rng(1),
    )
    return float(result.pvalue)


@pytest.mark.parametrize("seed", range(5))
def test_few_queries_are_counted_exactly_as_scipy_does(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.1, 0.3, 10)
    assert randomisation_p(differences, range(10)) == pytest.approx(scipy_p(differences))


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.04])
def test_many_queries_agree_with_scipy_within_the_drawing(shift: float) -> None:
    differences = np.random.default_rng(3).normal(shift, 0.3, 200)
    assert randomisation_p(differences, range(200)) == pytest.approx(scipy_p(differences, 20_000), abs=0.012)


def test_clusters_flip_together() -> None:
    """Each query ten times over, in one cluster, proves no more than the query once."""
    differences = np.random.default_rng(0).normal(0.1, 0.3, 12)
    repeated = np.repeat(differences, 10)
    groups = np.repeat(np.arange(12), 10).tolist()
    assert randomisation_p(repeated, groups) == pytest.approx(randomisation_p(differences, range(12)))
    assert randomisation_p(repeated, range(120)) < randomisation_p(repeated, groups) / 5
    assert standard_error(repeated, groups) == pytest.approx(standard_error(differences, range(12)))


def test_no_difference_proves_nothing() -> None:
    assert randomisation_p(np.zeros(50), range(50)) == 1.0


def test_all_queries_better_is_as_sure_as_it_gets() -> None:
    assert randomisation_p(np.full(8, 0.1), range(8)) == 1 / 2**8
    assert randomisation_p(np.full(100, 0.1), range(100)) == 1 / 20_001


def test_the_level_holds_under_the_null() -> None:
    random = np.random.default_rng(5)
    rejected = sum(
        randomisation_p(random.choice([-0.5, 0.0, 0.5], 60), range(60), resamples=1_000) <= 0.05 for _ in range(400)
    )
    assert rejected <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)


def test_the_same_differences_give_the_same_p() -> None:
    differences = np.random.default_rng(9).normal(0.02, 0.3, 90)
    assert randomisation_p(differences, range(90)) == randomisation_p(differences, range(90))


def test_interval_agrees_with_scipy() -> None:
    differences = np.random.default_rng(2).normal(0.05, 0.2, 150)
    low, high = bootstrap_interval(differences, range(150))
    oracle = bootstrap((differences,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=2e-3)


def test_minimum_detectable_gain_of_independent_queries_is_the_textbook_formula() -> None:
    differences = np.random.default_rng(2).normal(0.0, 0.2, 300)
    expected = (norm.ppf(0.95) + norm.ppf(0.8)) * differences.std(ddof=1) / math.sqrt(300)
    assert minimum_detectable_gain(differences, range(300), alpha=0.05) == pytest.approx(expected)


def test_minimum_detectable_gain_is_found_as_often_as_promised() -> None:
    random = np.random.default_rng(4)
    gain = minimum_detectable_gain(random.normal(0, 0.2, 100), range(100), alpha=0.05)
    found = sum(randomisation_p(random.normal(gain, 0.2, 100), range(100), resamples=1_000) <= 0.05 for _ in range(300))
    assert 0.7 < found / 300 < 0.9


def test_without_a_difference_the_planned_deviation_stands_in() -> None:
    assert minimum_detectable_gain(np.zeros(300), range(300), alpha=0.05) == pytest.approx(0.0287, abs=2e-4)
    assert PLANNED_DEVIATION == 0.20
    assert minimum_detectable_gain(np.zeros(0), [], alpha=0.05) == math.inf


def test_cluster_sums_keep_the_order_of_appearance() -> None:
    sums, sizes = cluster_sums(np.asarray([1.0, 2.0, 3.0]), ["b", "a", "b"])
    assert sums.tolist() == [4.0, 2.0]
    assert sizes.tolist() == [2.0, 1.0]
