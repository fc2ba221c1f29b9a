"""Is a gain more than luck? Paired statistics over queries, resampled by what was written together.

The queries of one commit or one file rise and fall together, so the cluster is the unit. Tests: one-sided paired
randomisation (Smucker, Allan and Carterette 2007; Urbano, Lima and Hanjalic 2019 advise it and the t-test, and
against Wilcoxon and sign test). Everything is seeded: the same differences give the same numbers.
"""

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

RESAMPLES = 20_000
EXACT_CLUSTERS = 14
"""Up to so many clusters that differ, all sign patterns are counted instead of drawn."""
SEED = 20_261_124
POWER = 0.8
PLANNED_DEVIATION = 0.20
"""Typical standard deviation of the differences of reciprocal rank between a model and its fine-tuned self."""
_ROWS = 4_096


def randomisation_p(differences: Doubles, groups: Sequence[Hashable], *, resamples: int = RESAMPLES) -> float:
    """One-sided p-value of "the mean difference is not above zero".

    Under the null hypothesis the two systems may swap names in any cluster: its differences change sign together.

    Args:
        differences: (queries,) candidate minus live.
        groups: (queries,) cluster of each query.

    Returns:
        Share of sign patterns whose mean is at least the one seen: exact for few clusters, else drawn, the observed
        pattern counted among them (so never 0).
    """
    sums, _ = cluster_sums(differences, groups)
    sums = sums[np.abs(sums) > 1e-12]  # a cluster without a difference has no say
    if not len(sums):
        return 1.0
    observed = sums.sum() - 1e-9 * np.abs(sums).sum()
    if len(sums) <= EXACT_CLUSTERS:
        patterns = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1  # (patterns, clusters)
        return float(np.mean((1 - 2 * patterns) @ sums >= observed))
    random = np.random.default_rng(SEED)
    as_large = 0
    for start in range(0, resamples, _ROWS):
        rows = min(_ROWS, resamples - start)
        signs = random.integers(0, 2, (rows, len(sums)), dtype=np.int8) * 2.0 - 1.0
        as_large += int(np.count_nonzero(signs @ sums >= observed))
    return (1 + as_large) / (1 + resamples)


def bootstrap_interval(
    differences: Doubles, groups: Sequence[Hashable], *, level: float = 0.95, resamples: int = 10_000
) -> tuple[float, float]:
    """Percentile interval of the mean difference, clusters drawn with replacement."""
    sums, sizes = cluster_sums(differences, groups)
    random = np.random.default_rng(SEED)
    clusters = len(sums)
    means = np.empty(resamples)
    for start in range(0, resamples, _ROWS):
        rows = min(_ROWS, resamples - start)
        drawn = random.integers(0, clusters, (rows, clusters))
        means[start : start + rows] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def minimum_detectable_gain(
    differences: Doubles, groups: Sequence[Hashable], *, alpha: float, power: float = POWER
) -> float:
    """The smallest true gain that a one-sided test at `alpha` finds with probability `power`.

    `(z(1 - alpha) + z(power)) * standard error`, the error by clusters. Where no query differs the deviation is not
    known, and `PLANNED_DEVIATION` stands in for it.
    """
    if not len(differences):
        return math.inf
    error = standard_error(differences, groups) or PLANNED_DEVIATION / math.sqrt(len(differences))
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)) * error


def standard_error(differences: Doubles, groups: Sequence[Hashable]) -> float:
    """Of the mean difference, robust to correlation within clusters; 0 with fewer than two clusters."""
    sums, sizes = cluster_sums(differences, groups)
    clusters = len(sums)
    if clusters < 2:
        return 0.0
    residuals = sums - differences.mean() * sizes
    return float(math.sqrt(clusters / (clusters - 1) * float(residuals @ residuals)) / len(differences))


def cluster_sums(differences: Doubles, groups: Sequence[Hashable]) -> tuple[Doubles, Doubles]:
    """Sum of the differences and number of queries of each cluster, in order of first appearance."""
    order: dict[Hashable, int] = {}
    codes = np.asarray([order.setdefault(group, len(order)) for group in groups], dtype=np.int64)
    sums = np.bincount(codes, weights=differences, minlength=len(order)).astype(np.float64)
    return sums, np.bincount(codes, minlength=len(order)).astype(np.float64)
