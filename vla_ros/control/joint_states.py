"""The newest measured positions of the joints, without those that are not credible."""

from collections.abc import Sequence

import numpy as np

from vla_ros.core.joint_states import JointStates, joint_fault


class MeasuredJoints(JointStates):
    """The newest position of every joint. Positions stamped far ahead are ignored, so the joint becomes stale and is
    reported.

    Attributes:
        arrived_ns: (J,) int64 ROS time when the positions arrived here.
    """

    def __init__(self, names: Sequence[str], future_tolerance: float) -> None:
        """`future_tolerance`: s a stamp may lie ahead of now."""
        self._future = future_tolerance
        self._now_ns = 0
        super().__init__(names)

    def clear(self) -> None:
        super().clear()
        self.arrived_ns = np.zeros_like(self.stamps_ns)
        self._since = np.zeros(len(self.names), dtype=bool)

    def update(self, stamp_ns: int, names: Sequence[str], position: Sequence[float], now_ns: int) -> None:
        """Add a message. If its stamp is zero, the time of arrival counts."""
        stamp_ns = stamp_ns or now_ns
        latest = now_ns + int(self._future * 1e9)
        back_ns, self._now_ns = self._now_ns - now_ns, now_ns
        if 0 < back_ns <= latest - now_ns:  # time was set back a little: what arrives from now on is not late
            self.stamps_ns = np.where(self.stamps_ns > back_ns, self.stamps_ns - back_ns, self.stamps_ns)
        if stamp_ns > latest or stamp_ns < 0 or joint_fault(names, position):
            return
        ahead = self.stamps_ns > latest
        if ahead.any():  # time was set back meanwhile
            self.position[ahead], self.stamps_ns[ahead] = np.nan, 0
        taken = self.add(stamp_ns, names, position)
        self.arrived_ns[taken], self._since[taken] = now_ns, True

    def mark(self) -> None:
        """From now on `since_mark` tells new positions from earlier ones, even if the clock is set."""
        self._since[:] = False

    def since_mark(self, stamp_ns: int, now_ns: int) -> bool:
        """Every joint's position arrived since `mark` and was measured after `stamp_ns`.

        Stamps are not compared if time was set back meanwhile (`now_ns` is before `stamp_ns`), nor for a driver whose
        clock is ahead.
        """
        later = now_ns < stamp_ns or np.minimum(self.stamps_ns, self.arrived_ns) > stamp_ns
        return bool((self._since & later).all())

    def stale(self, now_ns: int, timeout: float) -> str:
        """The joints without a fresh position, with their ages, in words; "" if all are fresh. `timeout`: s."""
        return self.problem(now_ns, timeout, self._future)
