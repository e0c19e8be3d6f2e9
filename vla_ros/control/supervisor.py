"""States of the executor, causes of stops, and their recovery.

| state | cause | tripped by | recovery |
| --- | --- | --- | --- |
| INACTIVE | | not activated | activate: fresh joint states, no e-stop, no other commander |
| APPROACHING | | first chunk after a hold or stop | reaches the blend |
| EXECUTING | | | |
| HOLDING | NO_CHUNK | no live chunk | the next accepted chunk |
| HOLDING | NO_INSTRUCTION | empty instruction | an instruction and a chunk for it |
| HOLDING | TAKEOVER_PAUSED | taken over, and a stop, a silence or jump of it, no instruction | again, or given back |
| STOPPED | STALE_JOINT_STATES | a joint without a fresh position | all joints fresh, then a chunk |
| STOPPED | FOLLOWING_ERROR | far from the command, not moving with it, or outside | near it for 0.5 s, then a chunk |
| STOPPED | POLICY_GONE | the policy's status no longer arrives | it arrives again, or a chunk after the stop |
| STOPPED | OVERRUN | the control loop stalled | 0.5 s without a stall, then a chunk |
| STOPPED | CLOCK_JUMP | ROS time jumped or went back | 0.5 s of steady time, fresh joints, then a chunk |
| STOPPED | REVERSALS | motion reverses too often (if configured) | another instruction, 0.5 s at rest, a chunk |
| STOPPED | RIVAL | other publisher on a command topic | it is gone, fresh joints, then a chunk |
| STOPPED | UNCONFIRMED | one of these (not REVERSALS) for 2 s (`Resumption`) | the instruction again, then a chunk |
| TAKEN_OVER | | a source commands in the policy's place (`Takeover`) | given back, then a chunk |
| E_STOPPED | | topic or service, in any state | an explicit reset, then a chunk |

Commands: none while INACTIVE; APPROACHING, EXECUTING and TAKEN_OVER follow their target within the limits; all others
brake within the limits (STOPPED and E_STOPPED ignore that of jerk) and then repeat the last command, with two
exceptions: after OVERRUN the robot has stood at the last command for a while, so it continues from rest there; after
RIVAL it stops publishing once it has braked, and starts again as an activation does (`Executor`).

"Then a chunk" means one whose observation is younger than the recovery, so that nothing observed before a stop moves
the robot after it. Several causes may apply at once; each needs its own recovery, and the most serious one is shown.
"""

from dataclasses import dataclass
from enum import IntEnum

SETTLE_NS = 500_000_000  # how long a following error, a stall or a clock jump must be absent


class State(IntEnum):
    """The values equal the constants of ExecutorStatus.msg."""

    UNCONFIGURED = 0
    INACTIVE = 1
    APPROACHING = 2
    EXECUTING = 3
    HOLDING = 4
    STOPPED = 5
    E_STOPPED = 6
    TAKEN_OVER = 7


class Cause(IntEnum):
    """The values equal the constants of ExecutorStatus.msg."""

    NONE = 0
    NO_CHUNK = 1
    NO_INSTRUCTION = 2
    STALE_JOINT_STATES = 3
    FOLLOWING_ERROR = 4
    POLICY_GONE = 5
    OVERRUN = 6
    CLOCK_JUMP = 7
    RIVAL = 8
    REVERSALS = 9
    UNCONFIRMED = 10
    TAKEOVER_PAUSED = 11


GRAVEST_FIRST = (
    Cause.RIVAL,
    Cause.CLOCK_JUMP,
    Cause.OVERRUN,
    Cause.STALE_JOINT_STATES,
    Cause.FOLLOWING_ERROR,
    Cause.REVERSALS,
    Cause.POLICY_GONE,
    Cause.UNCONFIRMED,
)


@dataclass
class _Trip:
    message: str
    absent_since_ns: int | None = None  # when the fault was first absent


class Supervisor:
    """The causes that apply now, and the latch of the e-stop.

    Attributes:
        not_before_ns: chunks with an older observation are not followed; None if there was no stop yet.
        e_stop_message: what triggered the e-stop; empty if it is not latched.
    """

    def __init__(self) -> None:
        self.e_stop_message = ""
        self.clear()

    def clear(self) -> None:
        """A fresh activation. The e-stop stays latched."""
        self._trips: dict[Cause, _Trip] = {}
        self.not_before_ns: int | None = None

    @property
    def e_stopped(self) -> bool:
        return bool(self.e_stop_message)

    def e_stop(self, message: str) -> None:
        """Latch. The first message is kept."""
        self.e_stop_message = self.e_stop_message or message or "e-stop"

    def reset_e_stop(self, now_ns: int) -> None:
        self.e_stop_message = ""
        self.not_before_ns = now_ns

    def tripped(self, cause: Cause) -> bool:
        return cause in self._trips

    def message(self, cause: Cause) -> str:
        """The message of a cause that applies."""
        return self._trips[cause].message

    @property
    def stopped(self) -> bool:
        """Whether the robot must not follow anything."""
        return self.e_stopped or bool(self._trips)

    @property
    def worst(self) -> tuple[Cause, str]:
        """The most serious cause that applies, and its message; NONE if there is none."""
        for cause in GRAVEST_FIRST:
            if cause in self._trips:
                return cause, self._trips[cause].message
        return Cause.NONE, ""

    def trip(self, cause: Cause, message: str, now_ns: int) -> bool:
        """The fault is present now. True if it was not set before."""
        known = self._trips.get(cause)
        if known is None:
            self._trips[cause] = _Trip(message)
            self.not_before_ns = now_ns
            return True
        known.message, known.absent_since_ns = message, None
        return False

    def recovered(self, cause: Cause, now_ns: int, settle_ns: int = 0) -> bool:
        """The fault is absent now. True if this ends its recovery, after `settle_ns` without it."""
        known = self._trips.get(cause)
        if known is None:
            return False
        if known.absent_since_ns is None or now_ns < known.absent_since_ns:
            known.absent_since_ns = now_ns
        if now_ns - known.absent_since_ns < settle_ns:
            return False
        del self._trips[cause]
        self.not_before_ns = now_ns
        return True
