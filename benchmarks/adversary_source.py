"""A leader arm, or what claims to be one, for `adversary.py`: what it says, and when it may be followed."""

from typing import Any

import numpy as np
from adversary_draws import between
from command_check import Bounds

from vla_ros.core.errors import InputError

NS = 10**9
STOPPED, E_STOPPED, TAKEN_OVER = 5, 6, 7  # ExecutorStatus.msg
MODES = ("moving", "moving", "fast", "jumping", "one jump", "NaN", "silent", "some joints", "outside", "old stamps",
         "stamps ahead", "unstamped", "unknown joint")  # fmt: skip
CHANCE = {"take": 0.004, "give": 0.002, "mode": 0.01}  # in a control period


def random_takeover(rng: np.random.Generator) -> dict[str, Any]:
    """Settings."""
    return {"takeover_blend": float(rng.choice([1.0, 0.01, 10.0])),
            "takeover_timeout": float(rng.choice([0.25, 0.05, 2.0]))}  # fmt: skip


class Source:
    """Says where the robot should be, and asks to take over and gives back, at random.

    Attributes:
        may_lead: it took over, and nothing has happened since that ends that.
        counts: what was done, by name.
    """

    def __init__(self, rng: np.random.Generator, bounds: Bounds, timeout: float, tolerance: float) -> None:
        """`timeout`, `tolerance`: s, of a silence, and that a stamp may be ahead."""
        self._rng, self._bounds, self._patience_ns = rng, bounds, round((timeout + tolerance) * NS)
        self._columns = np.arange(len(bounds.names))
        self._names = list(bounds.names)
        self._every = int(rng.choice([1, 1, 3, 10]))
        self.mode, self.may_lead, self._said_ns, self._place = "moving", False, 0, np.empty(0)
        self._speed, self._count = np.zeros(len(self._columns)), 0

    def act(self, executor: Any, here: np.ndarray, now_ns: int) -> str:
        """One control period; `here` (J,): where the robot is. What was done, in a word, "" for nothing special."""
        rng, done = self._rng, ""
        if not self.may_lead:
            self._place = here[self._columns]
        chance = rng.random()
        if (chance := chance - CHANCE["mode"]) < 0:
            self.mode, done = str(rng.choice(MODES)), "source changes"
        self._count += 1
        if self._count % self._every == 0:
            self._say(executor, now_ns)
        if 0 <= chance < CHANCE["take"]:
            try:
                executor.take_over("source", now_ns)
                self.may_lead, done = True, "takeover"
            except InputError:
                done = "takeover refused"
        elif 0 <= chance - CHANCE["take"] < CHANCE["give"]:
            executor.give_back(now_ns)
            self.may_lead, done = False, "given back"
        return done

    def _say(self, executor: Any, now_ns: int) -> None:
        rng, bounds, columns, mode = self._rng, self._bounds, self._columns, self.mode
        if mode == "silent":
            return
        dt, limit = bounds.period * self._every, bounds.velocity[columns]
        self._speed = 0.9 * self._speed + 0.1 * rng.uniform(-1, 1, len(columns)) * limit * (30 if mode == "fast" else 3)
        low, high = bounds.lower[columns], bounds.upper[columns]
        self._place = np.clip(self._place + self._speed * dt, low, high)
        names, stamp = list(self._names), now_ns
        if mode in ("jumping", "one jump"):
            self._place = between(rng, low, high)
            self.mode = "jumping" if mode == "jumping" else "moving"
        values = self._place.copy()
        if mode == "NaN":
            values[rng.random(len(values)) < 0.3] = rng.choice([np.nan, np.inf, -np.inf])
        elif mode == "some joints":
            kept = rng.permutation(len(names))[: rng.integers(1, len(names) + 1)]
            names, values = [names[i] for i in kept], values[kept]
        elif mode == "outside":
            values = between(rng, low - (high - low), high + (high - low))
        elif mode == "old stamps":
            stamp -= int(rng.integers(0, 2 * NS))
        elif mode == "stamps ahead":
            stamp += int(rng.choice([NS // 20, NS, 10**12]))
        elif mode == "unstamped":
            stamp = 0
        elif mode == "unknown joint":
            names[0] = "unknown"
        self._said_ns = now_ns
        executor.takeover.heard(stamp, names, values, now_ns)

    def ended(self) -> None:
        """A stop, an empty instruction, a deactivation or an activation: it must take over again."""
        self.may_lead = False

    def fault(self, state: int, now_ns: int, steady: bool) -> str:
        """Why the executor must not follow it now, in words, if it does; `steady`: nobody sets the clock."""
        if state in (STOPPED, E_STOPPED):
            self.ended()
        if state != TAKEN_OVER:
            return ""
        if not self.may_lead:
            return "it has not taken over since the last stop"
        silent = now_ns - self._said_ns
        return f"silent for {silent * 1e-9:.3f} s" if steady and silent > self._patience_ns else ""
