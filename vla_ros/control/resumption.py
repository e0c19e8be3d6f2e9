"""Decides whether a robot that was stopped for a while continues by itself or waits for a person."""

from vla_ros.control.supervisor import GRAVEST_FIRST, Cause, Supervisor
from vla_ros.control.watchdogs import Watchdogs

LONGEST_NS = 2_000_000_000  # after a longer stop a person has to confirm
# Causes that need another instruction anyway, and this rule's own cause.
_OTHERS = (Cause.REVERSALS, Cause.UNCONFIRMED)


class Resumption:
    """After a stop of more than 2 s the robot is held (UNCONFIRMED) until an instruction is given, the same or another.

    Meanwhile somebody may have come near it, to replace a cable or to restart a driver, and the instruction that is
    still valid must not move it then. A stop is a cause of STOPPED, or a policy that was followed and now waits for its
    inputs or fails. An instruction confirms once all of that is over and no e-stop is latched. Stops that a person
    makes (e-stop and reset, an empty instruction, a deactivation) need no confirmation.

    Attributes:
        policy_waits: why the policy makes no chunks at present, in words; "" if it does.
    """

    def __init__(self, watchdogs: Watchdogs, supervisor: Supervisor, confirm: bool) -> None:
        """Without `confirm` nothing is held."""
        self._watchdogs, self._supervisor, self._confirm = watchdogs, supervisor, confirm
        self.policy_waits = ""
        self.clear()

    def clear(self) -> None:
        """The robot was activated, which confirms as well."""
        self._well_ns: int | None = None  # when it was last not stopped
        self._told = self._followed = False

    def told(self, instructed: bool) -> None:
        """An instruction arrived; it counts if nothing else stops the robot. `instructed`: it is not empty."""
        self._told = not (self._stop() or self._supervisor.e_stopped)
        self._followed &= instructed and not self._told

    def followed(self) -> None:
        """A chunk was accepted."""
        self._followed = True

    def tick(self, steady_ns: int, now_ns: int, instructed: bool, following: bool) -> None:
        """A control period.

        Args:
            steady_ns: a time that does not jump.
            instructed: there is an instruction.
            following: a chunk is being followed, even if the policy waits.
        """
        if not self._confirm:
            return
        why, told, self._told = self._stop(following), self._told, False
        if not why or self._well_ns is None:
            self._well_ns = steady_ns
        if not why:
            if told or not instructed:
                self._watchdogs.recovered(Cause.UNCONFIRMED, now_ns)
        elif self._supervisor.tripped(Cause.UNCONFIRMED):
            pass  # the message keeps the first stop
        elif instructed and steady_ns - self._well_ns > LONGEST_NS:
            text = f"stopped for more than {LONGEST_NS * 1e-9:g} s ({why}): moves when the instruction is given again"
            self._watchdogs.trip(Cause.UNCONFIRMED, text, now_ns)

    def _stop(self, following: bool = False) -> str:
        """Why the robot does not continue at present, in words; "" if nothing is wrong."""
        for cause in GRAVEST_FIRST:
            if cause not in _OTHERS and self._supervisor.tripped(cause):
                return self._supervisor.message(cause)
        return self.policy_waits if self._followed and not following else ""
