"""Paths of a base: check those of chunks, and compute velocities that follow them.

A path is relative to the pose of the base at the chunk's stamp, which odometry gives. In every control period the base
drives towards the point of the path that is `ahead` s later: a base that can drive sideways on the arc that also gives
it the right heading, any other by pure pursuit (Coulter, "Implementation of the pure pursuit path tracking algorithm",
1992), and it turns on the spot once it has almost arrived. A lag is made up in about the same time. The velocities go
through the same limits as all others; if one exceeds its speed, all are reduced in proportion, so that the base stays
on its path.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vla_ros.control.limits import Limits
from vla_ros.control.recent import Recent
from vla_ros.core.chunk import PATH, ActionChunk, Space

_UNITS = ("m", "rad")
_AHEAD = 0.3  # s, at least
_NEAR = 0.02  # m: nearer than this, the base turns rather than drives
NO_BASE = "the robot file has no base that drives forwards and turns"


class BaseFollower:
    """The path that is followed, and where the base is.

    Attributes:
        names: of the velocities.
        columns: (d,) of the velocities among the joints, in the order of `axes`.
        speed: (2,) m/s and rad/s at most.
        patience: s, largest distance between a stamp and the odometry used for it.
        ahead: s between now and the point that the base drives to: the time to its highest speed, or a little longer.
    """

    def __init__(
        self, axes: Mapping[str, str], limits: Limits, patience: float, max_age: float, future_tolerance: float,
        leap: float,
    ) -> None:
        """`axes`: "x", "y", "yaw" -> name of the velocity; there are x and yaw. `max_age`: s after which a chunk is
        over. `future_tolerance`: s that odometry may be late, or stamped ahead. `leap`: s; odometry that moves further
        at once than the base drives in that time, and in the time that passed, has jumped."""
        self.names = tuple(axes.values())
        self.columns = np.array([limits.names.index(name) for name in self.names])
        self._sideways, self._order = "y" in axes, [PATH.index(axis) for axis in axes]
        self._lower, self._upper = limits.lower[self.columns], limits.upper[self.columns]
        self._forwards = list(axes).index("x")
        speed = dict(zip(axes, limits.speed[self.columns], strict=True))
        self.speed = np.array([np.hypot(speed["x"], speed.get("y", 0.0)), speed["yaw"]])
        self.ahead = max(_AHEAD, float((limits.speed / limits.velocity)[self.columns].max()))
        self.patience, self._max_age, self._late, self._leap = patience, max_age, future_tolerance, leap
        self.clear()

    def clear(self) -> None:
        """Forget the path and the odometry."""
        self._poses, self._frame = Recent(self._max_age + 1.0), ""
        self.drop()

    def drop(self) -> None:
        """There is no path."""
        self._chunk: ActionChunk | None = None  # the newest chunk that contains the base
        self._path = np.empty((0, 3))

    def odometry(self, stamp_ns: int, pose: Sequence[float], frame: str, now_ns: int) -> None:
        """(3,) m, m, rad; `frame`: the base's link. An invalid pose is ignored; a jump ends the path."""
        late_ns, place = round(self._late * 1e9), np.array(pose, dtype=np.float64)
        if not np.isfinite(place).all() or not 0 <= stamp_ns <= now_ns + late_ns:
            return
        if last := self._poses.newest:
            place[2] = last[1][2] + _wrapped(place[2] - last[1][2])  # continuous beyond a whole turn
            passed = max(stamp_ns - last[0], 0) * 1e-9
            if (_apart(place, last[1]) > self.speed * (passed + self._leap)).any():
                self.clear()
        self._frame = frame
        self._poses.add(stamp_ns, place, late_ns)

    def problem(self, chunk: ActionChunk) -> str:
        """Why its path is not for this base, in words; "" if it is. The values are not checked."""
        parts, part = chunk.targets.parts, chunk.targets.path
        if sum(one.space == Space.BASE_PATH for one in parts) > 1:
            return "several parts of BASE_PATH, expected one"
        if sorted(part.names) != sorted(PATH):
            return f"BASE_PATH of {list(part.names)[:10]}, expected {list(PATH)}"
        if part.group:
            return f"BASE_PATH of {part.group!r}, expected '': the robot has one base"
        if part.frame not in ("", self._frame):
            return f"BASE_PATH in frame {part.frame!r}, expected '' or the base's link, by odometry {self._frame!r}"
        others = {name for one in parts if one is not part for name in one.names}
        twice = [name for name in self.names if name in others]
        return f"{twice} beside BASE_PATH, which drives them too" if twice else ""

    def fault(self, chunk: ActionChunk, now_ns: int, outlier_speed: float, jump_limit: float) -> tuple[str, str] | None:
        """Reason (`admission.Reason`) and description if the base cannot follow its path from where it is."""
        if (path := self.placed(chunk)) is None:
            return "unobserved", f"no odometry within {self.patience} s of its stamp, from where its path counts"
        speeds = _apart(path[1:], path[:-1]) / chunk.step_dt
        over = speeds - outlier_speed * self.speed
        if (over > 0).any():
            row, i = np.unravel_index(int(over.argmax()), over.shape)
            words = f"{speeds[row, i]:.4g} {_UNITS[i]}/s from the row before"
            return "outlier", f"path of the base, row {row}: {words}, limit {outlier_speed:g} x {self.speed[i]:.4g}"
        steps = np.clip((now_ns - chunk.stamp_ns) * 1e-9 / chunk.step_dt, 0.0, chunk.horizon)
        away, reach = _apart(_at(path, steps), self._poses.newest[1]), jump_limit * self.speed
        if (away > reach).any():
            i = int((away - reach).argmax())
            words = f"begins {away[i]:.4g} {_UNITS[i]} from where it is, limit {reach[i]:.4g}"
            return "jump", f"path of the base: {words}"
        return None

    def placed(self, chunk: ActionChunk) -> np.ndarray | None:
        """(H + 1, 3) pose of the base at the stamp, and its target after each `step_dt`, m, m, rad in odometry's frame;
        None if there is no odometry near the stamp."""
        start = self._poses.near(chunk.stamp_ns, self.patience)
        if start is None:
            return None
        part = chunk.targets.path
        rows = part.data[:, [part.names.index(name) for name in PATH]]
        cos, sin = np.cos(start[2]), np.sin(start[2])
        way = rows @ np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        way[:, 2] = np.unwrap(np.append(0.0, way[:, 2]))[1:]
        return np.concatenate([start[None], start + way])

    def take(self, chunk: ActionChunk) -> None:
        """A chunk was accepted. The newest one that contains the base decides what the base does."""
        known, part = self._chunk, chunk.targets.path
        if known and chunk.instruction_id != known.instruction_id:
            self.drop()
        elif known and chunk.stamp_ns < known.stamp_ns:
            return
        if part or any(name in self.names for one in chunk.targets.parts for name in one.names):
            self.drop()
            self._chunk = chunk
        if part:
            self._path = self.placed(chunk)

    def velocities(self, at_ns: int) -> np.ndarray | None:
        """(d,) m/s and rad/s, zero at the end of the path; None if there is no path."""
        if not len(self._path):
            return None
        passed, zero = (at_ns - self._chunk.stamp_ns) * 1e-9, np.zeros(len(self.columns))
        newest = self._poses.newest
        if newest is None or not 0 <= passed < min(self._chunk.duration, self._max_age):
            return zero
        if abs(at_ns - newest[0]) > self.patience * 1e9:
            return zero
        aim = _at(self._path, min((passed + self.ahead) / self._chunk.step_dt, self._chunk.horizon))
        return self._towards(aim, newest[1])

    def _towards(self, aim: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """(d,) velocities that lead from a pose (3,) to another one in `ahead` s, or at the highest speed."""
        turn, (east, north) = aim[2] - pose[2], aim[:2] - pose[:2]
        # A base that can drive sideways moves along an arc; its chord is the direction of the velocities, rotated by
        # half the turn.
        half = 0.5 * turn if self._sideways else 0.0
        cos, sin = np.cos(pose[2] + half), np.sin(pose[2] + half)
        x, y = cos * east + sin * north, cos * north - sin * east
        if self._sideways:
            x, y = np.array([x, y]) / np.sinc(np.clip(half, -1.5, 1.5) / np.pi)
        else:
            way = x * x + y * y
            # If it cannot drive to a point behind it, it does not turn away from it either.
            share = way / (way + _NEAR * _NEAR) if x > 0 or self._lower[self._forwards] < 0 else 0.0
            turn = share * x * 2.0 * y / max(way, 1e-12) + (1.0 - share) * turn
        wish = np.array([x, y, turn])[self._order] / self.ahead
        most = np.where(wish > 0, self._upper, -self._lower)  # for example zero, for a base that cannot drive backwards
        wish = np.where(most > 0, wish, 0.0)
        return wish / max((np.abs(wish) / np.where(most > 0, most, 1.0)).max(), 1.0)


def _at(path: np.ndarray, steps: float) -> np.ndarray:
    """(3,) `steps` after the first row of (H + 1, 3)."""
    k = min(int(steps), len(path) - 2)
    return path[k] + (steps - k) * (path[k + 1] - path[k])


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(..., 2) m and rad between poses (..., 3)."""
    away = one - other
    return np.stack([np.hypot(away[..., 0], away[..., 1]), np.abs(away[..., 2])], axis=-1)


def _wrapped(angle: float) -> float:
    return float((angle + np.pi) % (2.0 * np.pi) - np.pi)
