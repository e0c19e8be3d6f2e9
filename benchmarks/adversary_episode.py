"""One episode of `adversary.py`: what is done to an executor, and a model of what may come out."""

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from adversary_draws import between, path_chunk, plan, random_robot, random_settings, random_watching, wild, with_base
from adversary_source import Source, random_takeover
from adversary_tool import arm, tool_chunk
from adversary_tool import robot as robot_with_tool
from command_check import STAMPS, Bounds, CommandCheck

from vla_ros.control.admission import NO_TOOL, Reason
from vla_ros.control.executor import Executor
from vla_ros.control.limits import Limits
from vla_ros.control.timing import SimulatedPeriods
from vla_ros.core.chunk import ActionChunk, MalformedChunk, Part, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec

NS = 10**9
STOPPED, E_STOPPED, TAKEN_OVER = 5, 6, 7  # ExecutorStatus.msg
SILENCE, E_STOP, CONTINUITY, CRASH = "command while silent", "e-stop lost", "continuity", "crash"
BASE = "base left in motion"
LED = "led without leave"
MORE_KINDS = (SILENCE, E_STOP, CONTINUITY, CRASH, BASE, LED)

EVENTS = {  # what arrives in a control period -> how often
    "plan": 0.04, "wild chunk": 0.03, "malformed chunk": 0.004, "repeated chunk": 0.004, "other session": 0.002,
    "instruction": 0.003, "e-stop": 0.001, "reset": 0.02, "rival": 0.001, "rivals gone": 0.03, "deactivation": 0.001,
    "braking for deactivation": 0.0007, "activation": 0.03, "policy gone": 0.001, "policy back": 0.02,
    "joint states": 0.003, "joint states well again": 0.015, "push": 0.0007,
}  # fmt: skip
JOINT_STATES = ("frozen", "none", "teleporting", "NaN", "drifting", "lagging", "some joints")
LEAPS = (-1e3, -0.3, -0.06, -0.004, -0.0007, -1e-9, 1e-9, 0.0007, 0.004, 0.06, 0.3, 1e3)  # s, of ROS time


@dataclass
class Result:
    """Sums over episodes."""

    ticks: int = 0
    commands: int = 0
    moving: int = 0
    led: int = 0  # ticks at which a source was followed
    faults: Counter[str] = field(default_factory=Counter)
    exempt: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)  # by their causes
    violations: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # kind -> episode and words, at most 5
    share: dict[str, float] = field(default_factory=lambda: {"velocity": 0.0, "acceleration": 0.0})

    def add(self, other: "Result") -> None:
        self.ticks += other.ticks
        self.commands += other.commands
        self.moving += other.moving
        self.led += other.led
        for name in ("faults", "exempt", "stops", "violations"):
            getattr(self, name).update(getattr(other, name))
        for kind, found in other.first.items():
            self.first[kind] = [*self.first.get(kind, []), *found][:5]
        for name, share in other.share.items():
            self.share[name] = max(self.share[name], share)


class Episode:
    """One robot, one executor, what is done to it, and a model of what may come out."""

    def __init__(self, seed: int, number: int, make: Callable[..., Executor] = Executor) -> None:
        """`make`: takes limits, rate, settings and whether time is simulated."""
        self.number = number
        self.rng = rng = np.random.default_rng([seed, number])
        self.result = Result()
        self.bounds: Bounds | None = None
        self.robot = random_robot(rng)
        self.settings = random_settings(rng)
        self.more = more = np.random.default_rng([seed, number, 1])
        leading = np.random.default_rng([seed, number, 3])
        self.settings = replace(self.settings, **random_watching(more), **random_takeover(leading))
        self.tool = bool(more.random() < 0.1)
        if self.tool:
            self.robot = robot_with_tool()
        self.driven = driven = np.random.default_rng([seed, number, 2])
        self.pose = np.zeros(3)  # as odometry says it, of a base
        if driven.random() < 0.25:
            self.robot = with_base(driven, self.robot)
        self.character = str(rng.choice(["regular", "late", "late and clock", "simulated"]))
        self.simulated = self.character == "simulated"
        try:
            robot = RobotSpec.from_dict(self.robot)
            tool, self.paths = arm() if self.tool else NO_TOOL, robot.path_axes
            rate = self.robot["control_rate"]
            self.executor = make(Limits.merge(robot), rate, self.settings, self.simulated, tool, self.paths)
        except InputError:
            self.result.faults["robot refused"] += 1
            return
        self.bounds = Bounds.of(self.robot)
        self.check = CommandCheck(
            self.bounds, self.settings.start_tolerance, together=arm().names if self.tool else ()
        )
        self.period_ns = round(NS * self.bounds.period)
        tolerance = self.settings.admission.future_tolerance
        self.source = Source(leading, self.bounds, self.settings.takeover_timeout, tolerance)
        self.names = self.bounds.names
        self.now_ns, self.steady_ns = 1_000_000 * NS + int(rng.integers(NS)), int(rng.integers(1, 10**15))
        if self.simulated:  # /clock: its mean step, in control periods, and how much its steps differ
            periods = getattr(self.executor, "periods", SimulatedPeriods)
            self.periods = periods(self.robot["control_rate"], self.settings.clock_jump_limit)
            self.clock_step = float(rng.choice([1.0, 100 / 240, 333 / 1000, 1.2, 3.7, 0.1]))
            self.clock_jitter = float(rng.choice([0.0, 0.0, 0.5, 0.99]))
            if more.random() < 0.5:  # the rounding of a simulator's times
                self.clock_jitter = max(self.clock_jitter, 500 / self.period_ns)
            self.steady_ns = self.at_ns = 0
        self.measured = between(rng, self.bounds.lower, self.bounds.upper)
        if rng.random() < 0.2:
            self.measured += (self.bounds.upper - self.bounds.lower) * rng.uniform(-0.2, 0.2, len(self.names))
        self.known = np.full(len(self.names), np.nan)  # what the executor was told, and when by `moment`
        self.told = np.zeros(len(self.names), dtype=int)
        self.leapt_ns = 0  # of simulated time
        self.moment = 0  # counts measurements and commands
        self.joint_mode, self.step = "well", 0
        self.session, self.sequence = 7, 0
        self.sent: ActionChunk | None = None
        # the model
        self.active = self.stopping = self.latched = self.rival = False
        self.cause = 0
        self.mute = self.heard = True  # no command until something allows one; nobody is known to miss any
        self.going_on = False
        self.starts: list[tuple[np.ndarray, np.ndarray]] = []  # after a silence: positions and when they were told
        self.last: np.ndarray | None = None
        self.last_moment = self.last_steady = 0  # of the last command that differed from the one before, of the last
        self.resting = 0  # commands one after the other without motion

    @np.errstate(all="ignore")  # of arithmetic on what is absurd: what comes out is checked
    def run(self, ticks: int) -> Result:
        if self.bounds is None:
            return self.result
        try:
            self.executor.set_instruction("go")
            self._event("activation")
            names = [*EVENTS, ""]
            weights = [*EVENTS.values(), 1.0 - sum(EVENTS.values())]
            for event in self.rng.choice(len(names), size=ticks, p=weights):
                if names[event]:
                    self._event(names[event])
                self._tick()
        except Exception as error:  # whatever it is, nothing that arrives may raise it
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._found(CRASH, f"{error!r} in {Path(where.filename).name}:{where.lineno}"[:300])
        self.check.end()
        result, check = self.result, self.check
        result.commands, result.moving, result.share = check.commands, check.moving, check.share
        result.violations.update(check.violations)
        result.first |= {kind: [(self.number, words)] for kind, words in check.first.items()}
        return result

    def _found(self, kind: str, words: str) -> None:
        self.result.violations[kind] += 1
        self.result.first.setdefault(kind, [(self.number, f"step {self.step}: {words}")])

    # What is done to the executor

    def _event(self, name: str) -> None:
        executor, rng = self.executor, self.rng
        if name == "activation" and self.active and not self.stopping:
            return
        if name in ("deactivation", "braking for deactivation") and not self.active:
            return
        if name == "joint states well again" and self.joint_mode == "well":
            return
        if self.tool and name in ("plan", "wild chunk") and self.more.random() < 0.8:
            name = "tool chunk"
        if self.paths and name in ("plan", "wild chunk") and self.driven.random() < 0.3:
            name = "path of the base"
        self.result.faults[name] += 1
        if name == "path of the base":
            targets, dt = path_chunk(self.driven, self.bounds)
            self._send(np.zeros((1, len(self.names))), dt, targets=targets)
        elif name == "tool chunk":
            targets, dt = tool_chunk(self.more, self._here)
            self._send(np.zeros((1, len(self.names))), dt, targets=targets)
        elif name == "plan":
            self._send(*plan(rng, self.bounds, self._here))
        elif name == "wild chunk":
            self._send(*wild(rng, self.bounds, self._here))
        elif name == "malformed chunk":
            self._malformed()
        elif name == "repeated chunk":
            if self.sent is not None:
                executor.add_chunk(self.sent, self.now_ns)
        elif name == "other session":
            self.session = int(rng.integers(2**63))
        elif name == "instruction":
            text = str(rng.choice(["go", "go", "go", "another", "", "\x00", "[/x]", "x" * 1000]))
            executor.set_instruction(text)
            if not executor.instruction:
                self.source.ended()
        elif name == "e-stop":
            executor.e_stop("button")
            self.source.ended()
            self.latched = True
        elif name == "reset":
            executor.reset_e_stop(self.now_ns)
            self.latched = False
        elif name == "rival":
            executor.rivals(["another node"], self.now_ns)
            self.rival = self.rival or self.active
        elif name == "rivals gone":
            self.rival = False
            if self.mute and self.active:
                self.starts.append((self.known.copy(), self.told.copy()))
            executor.rivals([], self.now_ns)
        elif name == "policy gone":
            executor.policy_alive(False, self.now_ns)
        elif name == "policy back":
            executor.policy_alive(True, self.now_ns)
        elif name == "joint states":
            self.joint_mode = str(rng.choice(JOINT_STATES))
        elif name == "joint states well again":
            self.joint_mode = "well"
        elif name == "push":
            self.measured = between(rng, self.bounds.lower, self.bounds.upper)
        elif name == "braking for deactivation":
            executor.begin_stop()
            self.source.ended()
            self.stopping = True
        elif name == "deactivation":
            executor.deactivate()
            self.source.ended()
            self.active = self.stopping = self.rival = False
            self.mute = True
        elif name == "activation":
            self._activate()

    def _activate(self) -> None:
        pause = int(self.rng.integers(0, 2 * self.period_ns))  # from the last tick
        self.now_ns += pause
        if not self.simulated:
            self.steady_ns += pause
        if self.rng.random() < 0.6 or np.isnan(self.known).any():
            self._measure(self.known if self.joint_mode == "frozen" else self.measured)
        try:
            self.executor.activate(self.now_ns)
        except InputError:
            self.result.faults["activation refused"] += 1
            return
        if self.latched:
            self._found(E_STOP, "activated while it was latched")
        self.source.ended()
        self.active, self.stopping, self.rival, self.mute = True, False, False, True
        self.executor.heard = self.heard = bool(self.more.random() < 0.5)
        self.starts = [(self.known.copy(), self.told.copy())]
        if self.simulated:
            self._simulated_tick(*self.periods.start(self.now_ns))

    @property
    def _here(self) -> np.ndarray:
        return self.measured if self.last is None else self.last

    def _send(self, rows: np.ndarray, dt: float, **change: Any) -> None:
        rng = self.rng
        self.sequence += 1
        columns = np.arange(len(self.names))
        parts = [columns]
        if rng.random() < 0.2:  # some of the joints, in two parts, in any order
            columns = rng.permutation(columns)[: rng.integers(1, len(columns) + 1)]
            parts = np.array_split(columns, 2) if len(columns) > 1 else [columns]
        ages = (0, 0, 0, 0, 1, self.period_ns // 2, 50_000_000, NS, -99_000_000, 10**12, -(10**12))
        values = {
            "stamp_ns": self.now_ns - int(ages[rng.integers(len(ages))]),
            "step_dt": dt,
            "targets": Targets(tuple(Part(tuple(self.names[i] for i in some), rows[:, some]) for some in parts)),
            "instruction_id": self.executor.instruction_id,
            "session": self.session,
            "sequence": self.sequence,
        } | change
        try:
            self.sent = ActionChunk(**values)
        except MalformedChunk as error:
            self.executor.refuse_chunk(Reason(error.reason), str(error))
            return
        self.executor.add_chunk(self.sent, self.now_ns)

    def _malformed(self) -> None:
        rng = self.rng
        rows, dt = plan(rng, self.bounds, self._here)
        poisoned = rows.copy()
        poisoned[rng.integers(len(rows)), rng.integers(len(self.names))] = rng.choice([np.nan, np.inf, -np.inf])
        part = Part(self.names, rows)
        strange = (
            {"rows": poisoned},
            {"dt": float(rng.choice([0.0, -1.0, 1e-300, 1e300, np.nan, np.inf]))},
            {"instruction_id": int(rng.integers(2**32))},
            {"sequence": int(rng.choice([0, 2**63, -1])), "session": int(rng.choice([self.session, 0]))},
            {"targets": Targets((Part(("unknown", *self.names[1:]), rows),))},
            {"targets": Targets((part, part))},
            {"targets": Targets((Part(self.names, rows[:, :-1]),))},
            {"targets": Targets(())},
            {"stamp_ns": int(rng.choice([0, -1, 2**62]))},
        )
        self._send(**{"rows": rows, "dt": dt, **strange[rng.integers(len(strange))]})

    def _measure(self, position: np.ndarray) -> None:
        self.executor.joint_state(self.now_ns, list(self.names), list(position), self.now_ns)
        if self.paths:
            leap = 10.0 ** self.driven.integers(0, 300) if self.driven.random() < 0.002 else 0.0
            self.pose = self.pose * (leap == 0.0) + self.driven.normal(size=3) * (leap + 0.1 * self.bounds.period)
            self.executor.odometry(self.now_ns, self.pose, "base", self.now_ns)
        self.moment += 1
        believable = np.isfinite(position)
        self.known[believable], self.told[believable] = position[believable], self.moment

    def _move_joints(self) -> None:
        """What the robot did since the last tick, and what its driver says of it."""
        rng, mode = self.rng, self.joint_mode
        if mode in ("well", "some joints", "NaN") and self.last is not None:
            self.measured = self.last
        elif mode == "lagging" and self.last is not None:
            self.measured = 0.8 * self.measured + 0.2 * self.last
        elif mode == "drifting":
            self.measured = self.measured + rng.normal(size=len(self.names)) * self.bounds.velocity * self.bounds.period
        if mode == "none":
            return
        said = self.measured
        if mode == "frozen":
            said = self.known
        elif mode == "teleporting":
            said = between(rng, 2 * self.bounds.lower, 2 * self.bounds.upper)
        elif mode in ("NaN", "some joints"):
            said = np.where(rng.random(len(self.names)) < 0.3, np.nan, self.measured)
        self._measure(said)

    def _periods(self) -> int:
        """Control periods to the next tick: 1, or more for a late one."""
        if self.character == "regular" or (chance := self.rng.random()) > 0.03:
            return 1
        within = max(int(self.settings.overrun_limit / self.bounds.period), 1)
        periods = int(
            self.rng.integers(2, within + 2) if chance > 0.001 else within + 2 + self.rng.integers(within + 50)
        )
        stall = (periods * self.period_ns - self.period_ns) * 1e-9
        self.result.faults["stall" if stall > self.settings.overrun_limit else "late tick"] += 1
        return periods

    # Time, and what must hold

    def _tick(self) -> None:
        self.step += 1
        if done := self.source.act(self.executor, self._here, self.now_ns):
            self.result.faults[done] += 1
        if not self.heard and self.more.random() < 0.05:
            self.result.faults["commands heard at last"] += 1
            self.executor.heard = self.heard = True
        if self.simulated:
            self._clock_message()
            return
        passed = self._periods() * self.period_ns
        self.steady_ns += passed
        self.now_ns += passed
        if self.character == "late and clock":
            self._set_clock()
        self._move_joints()
        self._take(self.executor.tick(self.now_ns, self.steady_ns, (passed - self.period_ns) * 1e-9))

    def _set_clock(self) -> None:
        if self.rng.random() < 0.01:
            self.result.faults["clock set"] += 1
            self.now_ns += round(float(self.rng.choice(LEAPS)) * NS)

    def _clock_message(self) -> None:
        """/clock goes on by a step of its own; the control periods that are over then are ticked."""
        rng = self.rng
        self.now_ns += max(round(self.clock_step * self.period_ns * (1 + self.clock_jitter * rng.uniform(-1, 1))), 1)
        if rng.random() < 0.5:
            self._set_clock()
        self._move_joints()
        if not self.active:
            self._take(self.executor.tick(self.now_ns, self.steady_ns))
            return
        at_ns = self.now_ns
        for at_ns, steady_ns in self.periods.due(self.now_ns):
            self._simulated_tick(at_ns, steady_ns)
        if not 0 <= self.now_ns - at_ns < self.period_ns:
            self._found(STAMPS, f"{self.now_ns - at_ns} ns behind /clock")

    def _simulated_tick(self, at_ns: int, steady_ns: int) -> None:
        if not 0 <= at_ns - self.at_ns <= max(NS * self.settings.clock_jump_limit, 2 * self.period_ns):
            self.leapt_ns = at_ns - steady_ns
        self.at_ns, self.steady_ns = at_ns, steady_ns
        self._take(self.executor.tick(at_ns, steady_ns))

    def _take(self, command: Any) -> None:
        self.result.ticks += 1
        state, cause = (value.value for value in self.executor.state[:2])
        if state == STOPPED and cause != self.cause:
            self.result.stops[self.executor.state[1].name] += 1
        self.cause = cause
        self.result.led += state == TAKEN_OVER
        if fault := self.source.fault(state, self.now_ns, self.character in ("regular", "late")):
            self._found(LED, fault)
        if self.latched and state != E_STOPPED:
            self._found(E_STOP, f"state {state} while it is latched")
        if command is None:
            if self.active:
                if not self.mute and self.last[self.bounds.rates].any():
                    self._found(BASE, f"silence while the base is told {self.last[self.bounds.rates]}")
                self.mute, self.starts = True, []
            return
        unheard = not self.heard and self.check.longest_average == 1  # with jerk limits it comes to rest as a hold does
        self._judge(command, self.latched or self.stopping or state in (STOPPED, E_STOPPED) or unheard)

    def _judge(self, command: Any, stopped: bool) -> None:
        position = command.position
        if not self.active or (self.mute and not self.starts):
            self._found(SILENCE, "after None" if self.active else "inactive")
        elif self.rival and self.resting > self.check.longest_average + 3:
            self._found(SILENCE, "a rival is there and the robot has braked")
        if self.mute:
            self._begin(position)
        elif (self.steady_ns - self.last_steady - self.period_ns) * 1e-9 > self.settings.overrun_limit:
            self._begin_again(position)
        same = self.last is not None and np.array_equal(position, self.last) and not position[self.bounds.rates].any()
        self.resting = self.resting + 1 if same else 0
        # it may have been at rest in a period that was missed, or silent
        missed = self.steady_ns - self.last_steady > 1.5e9 * self.bounds.period
        self.going_on &= not (same or missed)
        stamp_ns = command.stamp_ns - self.leapt_ns  # a leap of simulated time is no motion
        self.check.add(position, stamp_ns, self.steady_ns, stopped or self.going_on)
        self.moment += 1
        if not same:
            self.last_moment = self.moment
        self.mute, self.last, self.last_steady = False, position, self.steady_ns

    def _begin(self, position: np.ndarray) -> None:
        """The first command after a silence is a measurement younger than the last command, or goes on from that."""
        bounds = self.bounds
        for start, told in reversed([*self.starts, (self.known, self.told)]):
            young = self.last is None or bool((told > self.last_moment).all())
            if young and np.array_equal(position, start):
                self.result.exempt["from rest at a measured position"] += 1
                self.check.begin(start)
                return
        seconds = (self.steady_ns - self.last_steady) * 1e-9
        stands = bounds.rates & (position == 0)  # a base that was told nothing for a while may be taken to stand
        if self.last is None or (
            np.where(stands, 0.0, np.abs(position - self.last)) > bounds.velocity * seconds * (1 + 1e-6) + 1e-9
        ).any():
            self._found(CONTINUITY, f"{position}, last command {self.last}, measured {self.known}")
            self.check.begin(position)
        elif seconds - self.period_ns * 1e-9 > self.settings.overrun_limit:
            self._begin_again(position)
        else:  # the last stretch goes on; with jerk limits the robot comes to rest before it follows anything
            self.going_on = self.check.longest_average > 1
            self.result.exempt["goes on from the last command"] += 1

    def _begin_again(self, position: np.ndarray) -> None:
        """After a stall the robot has stood at its last command; its base has been braked, or stands."""
        self.result.exempt["from rest after a stall"] += 1
        rates, seconds = self.bounds.rates, (self.steady_ns - self.last_steady) * 1e-9
        most = np.maximum(np.abs(self.last) - 0.9 * self.bounds.velocity * seconds, 0.0)
        if (rates & ((np.abs(position) > most + 1e-9) | (position * self.last < 0))).any():
            self._found(BASE, f"told {position[rates]} after {seconds} s at {self.last[rates]}")
        self.check.begin(np.where(rates, position, self.last))
