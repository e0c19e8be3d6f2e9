"""Interpolation between the rows of a chunk: linear, or cubic without overshoot."""

import numpy as np

INTERPOLATIONS = ("linear", "cubic")


def slopes(rows: np.ndarray) -> np.ndarray:
    """(H, D) slope per step at each row of (H, D), for `cubic`.

    Monotone piecewise cubic (Fritsch and Carlson 1980, with Butland's harmonic mean): between two rows the curve
    never leaves their interval, so that interpolation asks for nothing the policy did not ask for.
    """
    result = np.zeros_like(rows)
    if len(rows) < 2:
        return result
    steps = np.diff(rows, axis=0)
    before, after = steps[:-1], steps[1:]
    same_way = before * after > 0
    total = np.where(same_way, before + after, 1.0)
    result[1:-1] = np.where(same_way, 2.0 * before * after / total, 0.0)
    result[0], result[-1] = steps[0], steps[-1]
    if len(rows) > 2:  # the ends: no steeper than three times the step, so that monotony holds
        result[0] = _end(steps[0], steps[1])
        result[-1] = _end(steps[-1], steps[-2])
    return result


def _end(step: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Slope at an end from the two nearest steps, (D,) each; three-point formula, kept monotone."""
    slope = (3.0 * step - inner) / 2.0
    slope = np.where(slope * step <= 0, 0.0, slope)
    return np.where((step * inner < 0) & (np.abs(slope) > 3.0 * np.abs(step)), 3.0 * step, slope)


def linear(first: np.ndarray, second: np.ndarray, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope per step at the fraction f in [0, 1] between two rows; (C, J) rows, (C, 1) f.

    Exact at both ends and between equal rows, so a constant plan gives a constant command.
    """
    step = second - first
    return np.where(f == 1.0, second, first + f * step), step


def hermite(
    first: np.ndarray, second: np.ndarray, slope1: np.ndarray, slope2: np.ndarray, f: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope per step of the cubic with values and slopes (C, J) at both ends; f (C, 1) in [0, 1]."""
    g = 1.0 - f
    value = g * g * (1.0 + 2.0 * f) * first + f * f * (3.0 - 2.0 * f) * second + f * g * (g * slope1 - f * slope2)
    slope = 6.0 * f * g * (second - first) + g * (1.0 - 3.0 * f) * slope1 + f * (3.0 * f - 2.0) * slope2
    return value, slope
