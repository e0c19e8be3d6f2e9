"""Blends the predictions of several chunks for one instant into one: ensemble, latest, rtc."""

import numpy as np

from vla_ros.control.timeline import Predictions

MODES = ("ensemble", "latest", "rtc")


def ensemble_weights(count: int, m: float) -> np.ndarray:
    """(L,) weights exp(-m i) that sum to one, i = 0 the oldest; m < 0 favours the newest (Zhao et al. 2023, ACT)."""
    exponent = -m * np.arange(count)
    weights = np.exp(exponent - exponent.max())  # the greatest is 1: no overflow for any m
    return weights / weights.sum()


def fade(
    f: float | np.ndarray, span: float | np.ndarray, offset: float | np.ndarray, velocity: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """An offset and its velocity, each (J,) or a number, at the fraction `f` of `span` s: a cubic takes both to
    zero."""
    g, way = 1.0 - f, velocity * span
    return g * g * ((1.0 + 2.0 * f) * offset + f * way), (g * (1.0 - 3.0 * f) * way - 6.0 * f * g * offset) / span


class Blender:
    """`ensemble` averages all live chunks; `latest` and `rtc` follow the newest.

    When the source of the target changes (another newest chunk; for `ensemble`, another instruction), the difference at
    that moment, in position and velocity, is taken to zero by a cubic over `crossfade` seconds: the target and its
    first derivative are continuous. Discrete joints take the newest chunk's nearest row.

    A joint is blended from the chunks that contain it; `latest` and `rtc` use the newest chunk alone.
    """

    def __init__(self, mode: str, discrete: np.ndarray, m: float = -1.0, crossfade: float = 0.0) -> None:
        """`discrete`: (J,) bool. `m`: for ensemble. `crossfade`: s."""
        if mode not in MODES:
            raise ValueError(f"mode {mode!r}, expected one of {MODES}")
        self.mode = mode
        self.discrete = discrete
        self.m = m
        self.crossfade = crossfade
        self.reset()

    def reset(self) -> None:
        """Forget the last target: the next one is used without a fade."""
        self._course: tuple[int, int] | int | None = None
        self._before: tuple[int, np.ndarray, np.ndarray] | None = None  # instant, position, velocity
        self._fade: tuple[int, np.ndarray, np.ndarray] | None = None  # start, offset, its velocity

    def target(self, now_ns: int, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
        """(J,) position and (J,) velocity to follow at `now_ns`, NaN for the joints that no chunk contains."""
        nearest = predictions.nearest
        if self.mode == "ensemble":
            weights = ensemble_weights(len(predictions.position), self.m)
            position, velocity = weights @ predictions.position, weights @ predictions.velocity
            if predictions.partial:
                self._complete(predictions, position, velocity)
            course = predictions.newest.instruction_id
        else:
            position, velocity = predictions.position[-1], predictions.velocity[-1]
            course = (predictions.newest.session, predictions.newest.sequence)
            if predictions.partial:
                nearest = np.where(np.isnan(position), np.nan, nearest)
        if course != self._course:
            self._begin_fade(now_ns, position, velocity)
            self._course = course
        position, velocity = self._faded(now_ns, position, velocity)
        self._before = (now_ns, position, velocity)
        return np.where(self.discrete, nearest, position), np.where(self.discrete, 0.0, velocity)

    def _complete(self, predictions: Predictions, position: np.ndarray, velocity: np.ndarray) -> None:
        """Writes into both (J,) the average of the joints that some chunks contain and others do not."""
        known = ~np.isnan(predictions.position)
        for joint in np.flatnonzero(known.any(axis=0) & ~known.all(axis=0)):
            weights = ensemble_weights(int(known[:, joint].sum()), self.m)
            position[joint] = weights @ predictions.position[known[:, joint], joint]
            velocity[joint] = weights @ predictions.velocity[known[:, joint], joint]

    def _begin_fade(self, now_ns: int, position: np.ndarray, velocity: np.ndarray) -> None:
        self._fade = None
        if self._before is not None and self.crossfade > 0:
            instant, old, old_velocity = self._before
            here = old + old_velocity * ((now_ns - instant) * 1e-9)
            # a joint that is new in the chunk, or no longer in it, has no fade
            offsets = (np.nan_to_num(here - position), np.nan_to_num(old_velocity - velocity))
            self._fade = (now_ns, *offsets)

    def _faded(self, now_ns: int, position: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(J,) position and (J,) velocity with the current fade added."""
        if self._fade is None:
            return position, velocity
        start, *offsets = self._fade
        f = (now_ns - start) * 1e-9 / self.crossfade
        if not 0 <= f < 1:
            self._fade = None
            return position, velocity
        away, faster = fade(f, self.crossfade, *offsets)
        return position + away, velocity + faster
