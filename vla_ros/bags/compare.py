"""Is one policy better than another? A paired bootstrap over episodes."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from vla_ros.bags.evaluate import Evaluation

MIN_UNITS = 6  # with fewer even the widened interval misses the truth too often
RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """The difference second - first of the mean error, as a fraction of the joints' ranges."""

    first: str
    second: str
    difference: float
    low: float  # of the 95 % confidence interval, as `high`; NaN where there is too little data for one
    high: float
    units: str  # what was resampled, in words
    verdict: str  # a sentence


def compare(first: Evaluation, second: Evaluation, seed: int = 0) -> Comparison:
    """Compare two evaluations of the same chunks. The same arguments give the same numbers.

    Only rows that both chunks have count. Consecutive chunks see almost the same, so whole episodes are resampled, or,
    with fewer than six of them, blocks of chunks one horizon long.
    """
    horizon = min(first.errors.shape[1], second.errors.shape[1])
    errors = [e.errors[:, :horizon] / e.ranges for e in (first, second)]
    shared = np.isfinite(errors[0]) & np.isfinite(errors[1])
    scores = [np.nanmean(np.where(shared, e, np.nan), axis=(1, 2), dtype=np.float64) for e in errors]
    delta = scores[1] - scores[0]
    units, kind = first.episodes, "episodes"
    if len(np.unique(units)) < MIN_UNITS:
        place = np.concatenate([np.arange(n) for n in np.unique(units, return_counts=True)[1]])
        length = -(-horizon // first.every)
        units = np.unique(np.stack([units, place // length]), axis=1, return_inverse=True)[1].ravel()
        kind = f"blocks of {length} chunks"
    numbers = np.unique(units)
    difference = float(delta.mean())
    said = f"{len(numbers)} {kind}"
    if len(numbers) < MIN_UNITS:
        verdict = f"too little data for a verdict: {said}, expected at least {MIN_UNITS}"
        return Comparison(first.name, second.name, difference, np.nan, np.nan, said, verdict)
    sums = np.array([delta[units == n].sum() for n in numbers])
    sizes = np.array([(units == n).sum() for n in numbers])
    draws = np.random.default_rng(seed).integers(len(numbers), size=(RESAMPLES, len(numbers)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    tail = 100 * _tail(len(numbers))
    low, high = (float(v) for v in np.percentile(means, [tail, 100 - tail]))
    if high < 0 or low > 0:
        better, worse = (second, first) if high < 0 else (first, second)
        verdict = f"{better.name} is closer to what was executed than {worse.name}"
    else:
        verdict = "no difference shown"
    verdict += f": difference {100 * difference:+.3f} % of the joint ranges, 95 % interval {100 * low:+.3f} to "
    verdict += f"{100 * high:+.3f} % (bootstrap over {said})"
    return Comparison(first.name, second.name, difference, low, high, said, verdict)


def _tail(count: int) -> float:
    """The share to cut off on either side so that the interval covers 95 % even for few units.

    The expanded percentile interval of Hesterberg (2015, "What Teachers Should Know about the Bootstrap"):
    Φ(−sqrt(n / (n − 1)) · t) with Student's 97.5 % quantile t of n − 1 degrees of freedom.
    """
    z, nu = NormalDist().inv_cdf(0.975), count - 1
    # Cornish-Fisher expansion of the quantile; its error is below 0.01 from four degrees of freedom on.
    t = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * nu**3)
    return NormalDist().cdf(-np.sqrt(count / nu) * t)
