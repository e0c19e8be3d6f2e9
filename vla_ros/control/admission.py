"""Checks whether a chunk may be followed. The whole message is checked before any of it is used."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from vla_ros.control.base_path import NO_BASE, BaseFollower
from vla_ros.control.limits import Limits
from vla_ros.control.tool_chunks import TooFarError, ToolChunks, UnobservedError, apart
from vla_ros.core.chunk import SPATIAL, ActionChunk, Space
from vla_ros.core.errors import InputError

MAX_HORIZON = 10_000  # rows; a message with more is invalid, whatever the parameter says
MIN_STEP_DT = 1e-4  # s
NO_TOOL = "the robot file has no `tool`"
_UNITS = ("m", "rad")  # of position and rotation
_LONGEST = 300  # characters of a refusal, which may quote a message


class Reason(StrEnum):
    """Why a chunk was refused; the texts are those of ExecutorStatus.refusal_reasons."""

    SIZE = "size"  # a message of any topic, larger than a valid one could be
    UNDECODABLE = "undecodable"  # not a serialized message of its type, or inconsistent joint states
    SPACE = "space"  # neither joint positions nor for the robot's tool or base
    NAMES = "names"  # no joint, an unknown one or one twice
    ROTATION = "rotation"  # of a tool: numbers that are not a rotation
    UNOBSERVED = "unobserved"  # where a tool's differences, or a base's path, begin is not known
    SHAPE = "shape"  # horizon x names is not the length of a part's data
    HORIZON = "horizon"  # more rows than allowed
    STEP_DT = "step_dt"  # not a time, too short or too long
    NON_FINITE = "non_finite"  # NaN or infinite
    FUTURE = "future"  # stamped after now
    TOO_OLD = "too_old"  # stamped too long ago, or all of its rows are over
    BEFORE_STOP = "before_stop"  # computed from an observation before the robot was stopped
    INSTRUCTION = "instruction"  # follows another instruction than the current one
    RIVAL_POLICY = "rival_policy"  # of another session than the one that is being followed
    SEQUENCE = "sequence"  # neither observed later nor with a higher number: a duplicate, or overtaken
    POSITION = "position"  # far outside the position limits
    VELOCITY = "velocity"  # of a base: far outside the limits of its velocities
    OUTLIER = "outlier"  # two neighbouring rows are further apart than the joint could ever travel
    JUMP = "jump"  # begins far from the measured position
    INACTIVE = "inactive"  # the executor is not active
    STOPPED = "stopped"  # a watchdog has stopped the executor
    E_STOPPED = "e_stopped"  # the e-stop is latched
    TAKEN_OVER = "taken_over"  # a source commands in place of the policy


@dataclass(frozen=True)
class Refusal:
    """A reason and the words: joint, value and limit."""

    reason: Reason
    text: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}"


@dataclass(frozen=True)
class AdmissionRules:
    """Tolerances. The executor node's parameters of the same names have these defaults."""

    max_horizon: int = 1000  # rows
    max_step_dt: float = 2.0  # s between rows
    max_chunk_age: float = 3.0  # s since the stamp, at arrival and later
    future_tolerance: float = 0.1  # s a stamp may lie ahead (clocks of two machines)
    jump_limit: float = 0.4  # at its arrival from the measured position, in s at the joint's velocity limit
    position_excess: float = 0.25  # share of its range that a joint, or a velocity, is outside it (it is clipped)
    outlier_speed: float = 5.0  # multiple of the velocity limit between neighbouring rows (it is clipped)
    session_lease: float = 1.0  # s without a message after which another session may take over


class Admission:
    """Decides which chunks may be followed, counts them, and remembers whose chunks are followed.

    Attributes:
        accepted: number of chunks.
        refused: Reason -> number of chunks.
        last: the last refusal, None if there was none yet.
    """

    def __init__(
        self, limits: Limits, rules: AdmissionRules, tool: ToolChunks | str = NO_TOOL, base: BaseFollower | None = None
    ) -> None:
        """`tool`: reads end-effector targets, or says why there are none. `base`: follows paths, if there is one."""
        self.limits = limits
        self.rules = rules
        self.tool, self.base = tool, base
        self.accepted = 0
        self.refused: Counter[Reason] = Counter()
        self.last: Refusal | None = None
        self.release()

    def release(self) -> None:
        """The next session may take over: the last one has ended, or time was reset."""
        self._session: int | None = None
        self._sequence, self._stamp_ns = -1, -1  # of the last chunk, and the newest observation, of that session
        self._heard_ns = 0

    def release_session(self, session: int) -> None:
        """The policy has reported the end of this session."""
        if session == self._session:
            self.release()

    def refuse(self, reason: Reason, text: str) -> Refusal:
        """Count a chunk that was refused here or earlier."""
        self.refused[reason] += 1
        self.last = Refusal(reason, text if len(text) <= _LONGEST else text[:_LONGEST] + "…")
        return self.last

    @np.errstate(all="ignore")  # numbers that overflow are too far, too fast, or no rotation
    def check(
        self,
        chunk: ActionChunk,
        now_ns: int,
        instruction_id: int,
        measured: np.ndarray,
        not_before_ns: int | None = None,
        closed: Refusal | None = None,
    ) -> ActionChunk | Refusal:
        """The chunk (differences of a tool as absolute poses), or why it is refused.

        Args:
            chunk: what arrived; of some joints or all, in any order.
            now_ns: ROS time.
            instruction_id: of the current instruction, 0 for none.
            measured: (J,) measured position, NaN where it is not known.
            not_before_ns: chunks with an older stamp were observed before a stop.
            closed: why no chunk is followed at present; an invalid chunk is still refused for its own reason.
        """
        refusal = self._form(chunk) or closed or self._authority(chunk, now_ns, instruction_id, not_before_ns)
        refusal = refusal or self._content(chunk, now_ns, measured) or self._path(chunk, now_ns)
        result = refusal or self._placed(chunk, now_ns, measured)
        if isinstance(result, Refusal):
            return self.refuse(result.reason, result.text)
        newest = max(self._stamp_ns, chunk.stamp_ns) if chunk.session == self._session else chunk.stamp_ns
        self._session, self._sequence, self._stamp_ns = chunk.session, chunk.sequence, newest
        self._heard_ns = now_ns
        self.accepted += 1
        return result

    def _form(self, chunk: ActionChunk) -> Refusal | None:
        """Check that it is for this robot, and of a size that can be handled."""
        rules, known = self.rules, set(self.limits.names)
        for part in chunk.targets.parts:
            if part.space in SPATIAL:
                if refusal := self._tool_form(chunk):
                    return refusal
                continue
            if part.space == Space.BASE_PATH:
                if problem := self.base.problem(chunk) if self.base else f"BASE_PATH, but {NO_BASE}":
                    return Refusal(Reason.SPACE, problem)
                continue
            if part.space != Space.JOINT_POSITION:
                return Refusal(Reason.SPACE, f"{part.space.name}, expected {Space.JOINT_POSITION.name} alone")
            if held := self._of_tool(part.names):
                return Refusal(Reason.NAMES, f"joints {held}, which the robot file commands by the pose of its tool, "
                                             f"expected {Space.END_EFFECTOR_POSE.name} or _DELTA")
            unknown = [name for name in part.names if name not in known]
            if unknown:
                return Refusal(Reason.NAMES, f"unknown {unknown[:10]}, expected some of {list(self.limits.names)}")
        limit = min(rules.max_horizon, MAX_HORIZON)
        if chunk.horizon > limit:
            return Refusal(Reason.HORIZON, f"{chunk.horizon} rows, limit {limit}")
        if not MIN_STEP_DT <= chunk.step_dt <= rules.max_step_dt:
            return Refusal(
                Reason.STEP_DT, f"{chunk.step_dt} s, expected {MIN_STEP_DT} s or more, limit {rules.max_step_dt} s"
            )
        return None

    def _of_tool(self, names: Sequence[str]) -> list[str]:
        """Names of joints that cannot be commanded one by one, because the tool is commanded instead."""
        arm = None if isinstance(self.tool, str) else self.tool.arm
        return [name for name in names if name in (*arm.instead, *arm.names)] if arm and arm.instead else []

    def _tool_form(self, chunk: ActionChunk) -> Refusal | None:
        """Check that its end-effector part is for this robot's tool, and that no other part moves the same joints."""
        tool, spatial = self.tool, [part for part in chunk.targets.parts if part.space in SPATIAL]
        if isinstance(tool, str):
            what = f"{spatial[0].group} in " if spatial[0].group else ""
            expected = f"expected {Space.JOINT_POSITION.name} alone: {tool}"
            return Refusal(Reason.SPACE, f"{what}{spatial[0].space.name}, {expected}")
        if len(spatial) > 1:
            return Refusal(Reason.SPACE, f"{len(spatial)} parts of end effectors, expected the robot's one")
        if problem := tool.problem(spatial[0]):
            return Refusal(Reason.SPACE, problem)
        moved = set(tool.arm.names)
        twice = [name for part in chunk.targets.parts if part not in spatial for name in part.names if name in moved]
        if twice:
            return Refusal(Reason.NAMES, f"{twice} beside {spatial[0].space.name}, which moves them too")
        return None

    def _authority(
        self, chunk: ActionChunk, now_ns: int, instruction_id: int, not_before_ns: int | None
    ) -> Refusal | None:
        """Check that it may be followed now: instruction, session, age and order."""
        rules = self.rules
        age = (now_ns - chunk.stamp_ns) * 1e-9
        if -age > rules.future_tolerance:
            return Refusal(Reason.FUTURE, f"stamped {-age:.3f} s ahead, limit {rules.future_tolerance} s")
        if age > rules.max_chunk_age:
            return Refusal(Reason.TOO_OLD, f"stamped {age:.3f} s ago, limit {rules.max_chunk_age} s")
        if age >= chunk.duration:
            return Refusal(
                Reason.TOO_OLD, f"stamped {age:.3f} s ago, its rows were over {chunk.duration:.3f} s after that"
            )
        if not_before_ns is not None and chunk.stamp_ns < not_before_ns:
            late = (not_before_ns - chunk.stamp_ns) * 1e-9
            return Refusal(Reason.BEFORE_STOP, f"stamped {late:.3f} s before the robot was stopped")
        if instruction_id == 0 or chunk.instruction_id != instruction_id:
            return Refusal(
                Reason.INSTRUCTION, f"follows instruction {chunk.instruction_id}, current is {instruction_id}"
            )
        if chunk.session == self._session:
            # A later observation is followed whatever its number, so that a chunk with a huge number locks no policy
            # out, and a policy that starts counting again needs no new session.
            if chunk.sequence <= self._sequence and chunk.stamp_ns <= self._stamp_ns:
                late = (self._stamp_ns - chunk.stamp_ns) * 1e-9
                return Refusal(
                    Reason.SEQUENCE, f"sequence {chunk.sequence} after {self._sequence}, observed {late:.3f} s before"
                )
        elif self._session is not None:
            silent = (now_ns - self._heard_ns) * 1e-9
            if 0 <= silent < rules.session_lease:
                return Refusal(
                    Reason.RIVAL_POLICY,
                    f"session {chunk.session}, but session {self._session} leads and was heard "
                    f"{silent:.3f} s ago, limit {rules.session_lease} s",
                )
        return None

    def _content(self, chunk: ActionChunk, now_ns: int, measured: np.ndarray) -> Refusal | None:
        """Check its rows against the limits and `measured` (J,). Discrete joints may step, and so may the velocities of
        a base, since the base accelerates to them within its limits."""
        limits, rules = self.limits, self.rules
        rows = chunk.targets.joint_positions(limits.names, np.full(len(limits.names), np.nan))
        names, units, room = limits.names, limits.units, rules.position_excess * limits.range
        if worst := _worst(np.maximum(rows - limits.upper, limits.lower - rows) - room):
            row, i = worst
            bounds = f"limits {limits.lower[i]:.4g} to {limits.upper[i]:.4g} with a tolerance of {room[i]:.4g}"
            reason = Reason.VELOCITY if limits.rates[i] else Reason.POSITION
            return Refusal(reason, f"joint {names[i]}, row {row}: {rows[worst]:.4g} {units[i]}, {bounds}")
        gliding = ~(limits.discrete | limits.rates)
        speed = np.abs(np.diff(rows, axis=0)) / chunk.step_dt
        if worst := _worst(np.where(gliding, speed - rules.outlier_speed * limits.velocity, -np.inf)):
            row, i = worst
            words = f"{speed[worst]:.4g} {units[i]}/s from the row before"
            bounds = f"limit {rules.outlier_speed:g} x {limits.velocity[i]:.4g}"
            return Refusal(Reason.OUTLIER, f"joint {names[i]}, row {row + 1}: {words}, {bounds}")
        first = rows[self._first(chunk, now_ns)]
        reach = rules.jump_limit * limits.velocity
        if worst := _worst(np.where(gliding, np.abs(first - measured) - reach, -np.inf)[None]):
            i = worst[1]
            words = f"begins at {first[i]:.4g} {units[i]}, measured {measured[i]:.4g}, limit {reach[i]:.4g} away"
            return Refusal(Reason.JUMP, f"joint {names[i]}: {words}")
        return None

    def _path(self, chunk: ActionChunk, now_ns: int) -> Refusal | None:
        """Check its path of the base, if there is one, against odometry."""
        rules = self.rules
        found = chunk.targets.path and self.base.fault(chunk, now_ns, rules.outlier_speed, rules.jump_limit)
        return Refusal(Reason(found[0]), found[1]) if found else None

    def _placed(self, chunk: ActionChunk, now_ns: int, measured: np.ndarray) -> ActionChunk | Refusal:
        """The chunk with the poses of its tool, if it has any, after the checks that `_content` makes for joints."""
        if chunk.targets.spatial is None:
            return chunk
        horizon = chunk.horizon
        try:
            chunk = self.tool.absolute(chunk, chunk.targets.spatial)
        except UnobservedError as error:
            return Refusal(Reason.UNOBSERVED, str(error))
        except TooFarError as error:
            return Refusal(Reason.POSITION, str(error))
        except InputError as error:
            return Refusal(Reason.ROTATION, str(error))
        arm, rules, rows = self.tool.arm, self.rules, chunk.targets.spatial.data
        start = len(rows) - horizon  # rows in front of those of the message
        tool, places, rotations = arm.tool, rows[:, :3], rows[:, 3:].reshape(-1, 3, 3)
        lower, upper = np.array(tool.lower), np.array(tool.upper)
        room = rules.position_excess * (upper - lower)
        over = np.nan_to_num(np.maximum(places - upper, lower - places) - room, nan=np.inf)
        if worst := _worst(over):
            row, i = worst
            bounds = f"limits {lower[i]:.4g} to {upper[i]:.4g} with a tolerance of {room[i]:.4g}"
            return Refusal(Reason.POSITION, f"tool {'xyz'[i]}, row {row - start}: {places[worst]:.4g} m, {bounds}")
        fastest = np.array([tool.velocity, tool.rotation_velocity])
        speed = apart(places[:-1], rotations[:-1], places[1:], rotations[1:]) / chunk.step_dt
        if worst := _worst(speed - rules.outlier_speed * fastest):
            row, i = worst
            words = f"{speed[worst]:.4g} {_UNITS[i]}/s from the row before"
            bounds = f"limit {rules.outlier_speed:g} x {fastest[i]:.4g}"
            return Refusal(Reason.OUTLIER, f"tool, row {row + 1 - start}: {words}, {bounds}")
        if not np.isfinite(measured[arm.columns]).all():
            return chunk
        first, (place, rotation) = self._first(chunk, now_ns), arm.pose(measured)
        away, reach = apart(places[first], rotations[first], place, rotation), rules.jump_limit * fastest
        if len(arm.columns) < 6:  # an arm that cannot reach the rotation begins as far from it as it stays
            away[1] = 0.0
        if worst := _worst((away - reach)[None]):
            i = worst[1]
            words = f"begins {away[i]:.4g} {_UNITS[i]} from where it is, limit {reach[i]:.4g}"
            return Refusal(Reason.JUMP, f"tool: {words}")
        return chunk

    def _first(self, chunk: ActionChunk, now_ns: int) -> int:
        """The row that is due next at its arrival."""
        age = max((now_ns - chunk.stamp_ns) * 1e-9, 0.0)
        return min(int(np.ceil(age / chunk.step_dt - 1e-6)), chunk.horizon - 1)


def _worst(over: np.ndarray) -> tuple[int, int] | None:
    """Row and column of the greatest number above 0 in (H, J), or None. NaN is ignored."""
    if not (over > 0).any():
        return None
    row, column = np.unravel_index(int(np.nanargmax(over)), over.shape)
    return int(row), int(column)
