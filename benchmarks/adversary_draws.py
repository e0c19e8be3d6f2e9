"""What `adversary.py` draws: robots, settings, and rows of chunks."""

from typing import Any

import numpy as np
from command_check import Bounds

from vla_ros.control.admission import AdmissionRules
from vla_ros.control.settings import Settings
from vla_ros.core.chunk import PATH, Part, Space, Targets


def between(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, rows: int | None = None) -> np.ndarray:
    """Uniform, (J,) or (rows, J); for ranges beyond the largest number too."""
    u = rng.random(low.shape if rows is None else (rows, *low.shape))
    return low * (1.0 - u) + high * u


def random_robot(rng: np.random.Generator) -> dict[str, Any]:
    """What a robot file would contain."""
    if rng.random() < 0.3:
        lower = [-1.91986, -1.74533, -1.69, -1.65806, -2.74385, -0.17453]
        upper = [1.91986, 1.74533, 1.69, 1.65806, 2.84121, 1.74533]
        limits = [(*bounds, 3.0, 20.0, False) for bounds in zip(lower, upper, strict=True)]
        limits[5] = (lower[5], upper[5], 4.0, 40.0, True)
        rate, margin, jerky = 100.0, 0.01, False
    else:
        limits = []
        for _ in range(rng.integers(1, 9)):
            bottom = -float(10 ** rng.uniform(-3, 2))
            top = bottom + float(10 ** rng.uniform(-2, 2.3))
            velocity, acceleration = float(10 ** rng.uniform(-2, 2)), float(10 ** rng.uniform(-2, 3))
            limits.append((bottom, top, velocity, acceleration, bool(rng.random() < 0.2)))
        rate, margin, jerky = float(rng.choice([1, 10, 25, 50, 60, 100, 250, 333, 1000])), 0.001, rng.random() < 0.3
        if rng.random() < 0.02:
            limits[0] = (-1e308, 1e308, 1e308, 1e308, False)
    keys = ("lower", "upper", "velocity", "acceleration", "discrete")
    joints = [{"name": f"joint{i}"} | dict(zip(keys, values, strict=True)) for i, values in enumerate(limits)]
    for joint in joints:
        if jerky and rng.random() < 0.7:  # the average that keeps it is at most 200 periods long
            shortest = 2 * joint["acceleration"] * rate / 200
            joint["jerk"] = float(max(joint["acceleration"] * 10 ** rng.uniform(0.3, 2), shortest))
    names = [joint["name"] for joint in joints]
    group = {"name": "all", "topic": "command", "interface": "joint_state", "joints": names}
    return {"name": "random", "control_rate": rate, "position_margin": margin, "cameras": [], "joints": joints,
            "groups": [group]}  # fmt: skip


def with_base(rng: np.random.Generator, robot: dict[str, Any]) -> dict[str, Any]:
    """The robot on a base that drives in one to three dimensions."""
    axes = [str(axis) for axis in rng.permutation(["x", "y", "yaw"])[: rng.integers(1, 4)]]
    driven = []
    for axis in axes:
        speed = float(10 ** rng.uniform(-1, 1))
        driven.append({"name": axis, "unit": "rad/s" if axis == "yaw" else "m/s", "velocity": speed,
                       "lower": -speed * float(rng.choice([1.0, 1.0, 0.3, 0.0])), "upper": speed,
                       "acceleration": float(10 ** rng.uniform(-1, 2))})  # fmt: skip
    base = {"name": "base", "topic": "drive", "interface": "base_twist", "joints": axes, "axes": axes,
            "odometry": "odometry"}  # fmt: skip
    return robot | {"joints": [*robot["joints"], *driven], "groups": [*robot["groups"], base]}


def path_chunk(rng: np.random.Generator, bounds: Bounds) -> tuple[Targets, float]:
    """A path of the base, of which a half could be followed, or nearly, and the distance of its rows, s."""
    dt, horizon = float(rng.choice([0.02, 0.1, 0.5])), int(rng.choice([1, 5, 30]))
    size = bounds.upper[bounds.rates].max() * dt * float(rng.choice([0.3, 1.0, 5.0, 1e300]))
    rows = rng.normal(0.2, 0.5, (horizon, 3)).cumsum(axis=0) * size
    return Targets((Part(PATH, rows, Space.BASE_PATH),)), dt


def random_settings(rng: np.random.Generator) -> Settings:
    careless = AdmissionRules(  # nearly every finite chunk is let through: the limiter must not lean on admission
        max_horizon=10_000, max_step_dt=60.0, max_chunk_age=60.0, jump_limit=60.0, position_excess=100.0,
        outlier_speed=1e6, session_lease=0.0,
    )  # fmt: skip
    return Settings(
        mode=str(rng.choice(["ensemble", "latest", "rtc"])),
        ensemble_m=float(rng.choice([0.01, -10.0, 10.0, 0.0, -1.0])),
        crossfade=float(rng.choice([0.0, 0.2, 5.0])),
        rtc_crossfade=float(rng.choice([0.0, 0.05, 5.0])),
        interpolation=str(rng.choice(["linear", "cubic"])),
        joint_state_timeout=float(rng.choice([0.25, 10.0])),
        following_limit=float(rng.choice([0.3, 0.0, 10.0])),
        overrun_limit=float(rng.choice([0.1, 0.1, 0.03, 1.0])),
        clock_jump_limit=float(rng.choice([0.5, 0.05, 60.0])),
        start_tolerance=float(rng.choice([0.1, 0.0, 1.0])),
        resume="automatic",  # else it would stand most of the time
        admission=careless if rng.random() < 0.5 else AdmissionRules(),
    )


def random_watching(rng: np.random.Generator) -> dict[str, Any]:
    """Settings of the watch over the policy: whether it stops the robot, and how soon."""
    return {
        "on_reversals": str(rng.choice(["warn", "hold"])),
        "reversal_limit": float(rng.choice([5.0, 1.0, 0.2])),
        "monitor_window": float(rng.choice([5.0, 0.5])),
    }


def plan(rng: np.random.Generator, bounds: Bounds, here: np.ndarray) -> tuple[np.ndarray, float]:
    """(H, J) rows that begin at `here` (J,) and could be followed, or nearly, and their distance, s."""
    horizon, dt = int(rng.choice([2, 10, 30, 50])), float(rng.choice([0.5, 1.0, 2.0, 5.0, 20.0])) * bounds.period
    speed = rng.uniform(-1.2, 1.2, (1, len(here))) * bounds.velocity
    bend = rng.normal(0.0, 0.2, (horizon, len(here))).cumsum(axis=0) * bounds.velocity
    rows = here + (speed + bend) * dt * np.arange(horizon)[:, None]
    return np.clip(rows, bounds.lower, bounds.upper), max(dt, 1e-4)


def wild(rng: np.random.Generator, bounds: Bounds, here: np.ndarray) -> tuple[np.ndarray, float]:
    """As `plan`, but nothing could follow it."""
    size = (int(rng.choice([1, 2, 3, 16, 50, 1000], p=[0.1, 0.3, 0.2, 0.25, 0.148, 0.002])), len(here))
    dt = float(rng.choice([1e-4, 1e-3, max(bounds.period, 1e-4), 0.02, 0.1, 0.5, 2.0]))
    room = bounds.upper - bounds.lower
    k = np.arange(size[0])[:, None]
    kind = rng.integers(6)
    if kind == 0:
        rows = between(rng, bounds.lower - 0.24 * room, bounds.upper + 0.24 * room, size[0])
    elif kind == 1:  # at a limit with more than the greatest speed
        rows = here + rng.choice([-4.9, -1.0, 1.0, 4.9]) * bounds.velocity * dt * k
        rows = np.clip(rows, bounds.lower - 0.2 * room, bounds.upper + 0.2 * room)
    elif kind == 2:  # back and forth
        rows = here + bounds.velocity * dt * np.where(k % 2, 1, -1) * float(rng.choice([0.5, 2.4]))
    elif kind == 3:
        rows = np.where(rng.random(size) < 0.5, bounds.lower - 0.249 * room, bounds.upper + 0.249 * room)
    elif kind == 4:
        rows = rng.uniform(-1.0, 1.0, size) * 10.0 ** rng.integers(-5, 300)
    else:
        rows = np.tile(np.where(rng.random(size[1]) < 0.5, bounds.lower, bounds.upper), (size[0], 1))
    return rows, dt
