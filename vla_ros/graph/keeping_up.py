"""Whether a machine keeps up with a graph in real time."""

from vla_ros.msg import ExecutorStatus, PolicyStatus

_PATIENCE = 3.0  # s; shorter pauses are not reported
_SHARE = 0.6  # of the wanted rate
_ACTIVE = (ExecutorStatus.APPROACHING, ExecutorStatus.EXECUTING, ExecutorStatus.HOLDING)


class KeepingUp:
    """Gets the statuses at intervals.

    Attributes:
        words: what was too slow for 3 s, when that was first noticed; else "".
    """

    def __init__(self, chunk_rate: float, control_rate: float) -> None:
        """The rates that are wanted, Hz."""
        self._chunk_rate, self._control_rate = chunk_rate, control_rate
        self._since: float | None = None
        self.words = ""

    def look(self, policy: PolicyStatus | None, executor: ExecutorStatus | None, now: float) -> str:
        """`words`, when they are new. `now`: s, steady."""
        problem = self._problem(policy, executor)
        if not problem:
            self._since = None
        elif self._since is None:
            self._since = now
        if self.words or not problem or now - self._since < _PATIENCE:
            return ""
        self.words = f"this machine is too slow: {problem}"
        return self.words

    def _problem(self, policy: PolicyStatus | None, executor: ExecutorStatus | None) -> str:
        if policy is None or executor is None or executor.state not in _ACTIVE:
            return ""
        if policy.state == PolicyStatus.WAITING:
            return f"{', '.join(policy.waiting_for)} late (the simulator draws too slowly)"
        if policy.state == PolicyStatus.RUNNING and policy.chunks > 3 and policy.rate < _SHARE * self._chunk_rate:
            return (f"{policy.rate:.1f} chunks a second of {self._chunk_rate:g}, an inference takes "
                    f"{policy.inference_time:.2f} s")
        if 0 < executor.control_rate < _SHARE * self._control_rate:
            return f"control rate {executor.control_rate:.0f} Hz of {self._control_rate:g}"
        return ""
