"""The thread that owns the simulated world in lockstep, when time waits for the nodes."""

import time
from collections.abc import Callable
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rosgraph_msgs.msg import Clock

from vla_ros.messages.stamps import NS, set_stamp
from vla_ros.nodes.qos import RECORDED_DEPTH
from vla_ros.nodes.sim.loops import TASK_PERIOD, Loop, Stage

_IDLE = 0.01  # s of wall time at least for a control period of a simulation that waits to be run
_SKIPPED = 10.0  # s of simulated time between two layouts
_REPEAT = 0.5  # s of wall time after which /clock is repeated
_IDLE_PATIENCE = 3.0  # s of wall time to wait for a node that commanded a moment ago


class LockstepLoop(Loop):
    """Simulated time that waits for policy and executor, so that a run is the same on every machine.

    Until it is started, the world stands still while /clock advances, so that nodes can be brought up. After the first
    command the clock waits for commands then too, so that the executor sees no jump of time.
    Running, at each instant t: joint states and /clock; wait for a command stamped t on every group; when images are
    due, publish them and, while there is an instruction, wait until the executor has answered a chunk that was
    computed from them; one control period of physics. Images and the joint states beside them carry the stamp t. A
    subscription that is made while it waits gets those of t again, because a policy without them would never answer.

    Attributes:
        hold_on_success: at success even /clock stands still until `begin`, so that the next instruction reaches every
            node at the same time, in the middle of the motion.
        rest: s of simulated time between success and that.
    """

    def __init__(
        self, stage: Stage, image_rate: float, patience: float, chunks: bool = True, acknowledged: bool = False,
        chunk_rate: float = 0.0,
    ) -> None:
        """
        Args:
            image_rate: Hz of simulated time, the policy's own rate.
            patience: s of wall time to wait for a command or a chunk before the run is aborted.
            chunks: images are answered by chunks; False where something else than a policy steers.
            acknowledged: wait until every reliable subscriber has received the images, so that one that answers
                nothing, as a recorder, keeps up.
            chunk_rate: Hz of simulated time at which images wait for a chunk, for a policy that sees more images than
                it answers; 0: all of them do.
        """
        super().__init__(stage)
        self.time_limit = self.rest = 0.0
        self._chunks, self._acknowledged = chunks, acknowledged
        self._period_ns = round(stage.period * NS)
        self._image_periods = max(1, round(1.0 / (image_rate * stage.period)))
        asked = max(1, round(image_rate / chunk_rate)) if chunk_rate else 1
        self._chunk_periods = asked * self._image_periods
        self._patience = patience
        self._clock = stage.node.create_publisher(Clock, "/clock", RECORDED_DEPTH if acknowledged else 10)
        self._now = NS  # zero would mean "no time yet"
        self._running = False
        self.hold_on_success = False
        self._held = False
        self._hold_at = -1  # tick, -1 for none
        self.runs = 0
        self._ended_by = ""
        self._tick = 0  # control periods since the run began
        self._start = self._reset_ns = 0
        self._newest = -1  # stamp of the newest command that came while idle, -1 for none
        self._steered = False  # every group had a command for the last idle period
        self._shown = -1  # stamp of the newest images
        self._listeners: list[int] = []  # subscriptions of joint states and images when these were published
        self._answered = -1  # stamp of the newest chunk that the executor has answered
        self._instruction = ""

    def bodies(self) -> list[Callable[[], None]]:
        return [self.simulate]

    # Called from the node's thread

    def chunk_answered(self, stamp: int) -> None:
        with self._wake:
            self._answered = stamp
            self._wake.notify_all()

    def instruct(self, text: str) -> None:
        with self._wake:
            self._instruction = text
        super().instruct(text)

    # Called through `ask`, in the world's thread

    def skip(self) -> None:
        """Advance time so far that everything from before a reset is stale."""
        self._now += round(_SKIPPED * NS)
        self._reset_ns = self._now

    def begin(self) -> None:
        """Run the world, or resume it; no effect if it is running."""
        self._held = False
        if self._running:
            return
        self._running, self._ended_by, self.failure = True, "", ""
        self._tick, self._start, self._hold_at = 0, self._now, -1
        self.runs += 1
        self.stage.task.restart(self.stage.world)
        self.publish_task()

    def end(self, why: str) -> None:
        """`why` is one of: success, task failed, time limit, pause, reset, failure."""
        self._held = False
        if self._running:
            self._running, self._ended_by = False, why
            self.publish_task()

    def publish_task(self) -> None:
        self.stage.task.publish(
            self.stage.world,
            self._now,
            self.failure,
            state="held" if self._held else "running" if self._running else "paused",
            ended_by=self._ended_by,
            run=str(self.runs),
            steered=str(self._steered).lower(),
            run_start_ns=str(self._start),
            reset_ns=str(self._reset_ns),
            run_time=f"{self._tick * self.stage.period:.3f}",
        )

    def simulate(self) -> None:
        while not self.stopping.is_set():
            if self._held:
                self._wait_once(lambda: False, time.monotonic() + _REPEAT)
            elif self._running:
                self._run_period()
            else:
                self._idle_period()
            self._answer()
            if self._held:
                self.publish_task()
        self.stage.view.close()

    def _publish_now(self) -> None:
        self.stage.states.publish(self.stage.world, self._now)
        self._publish_clock()

    def _publish_clock(self) -> None:
        self._clock.publish(Clock(clock=set_stamp(Time(), self._now)))

    def _idle_period(self) -> None:
        commands, now = self.stage.commands, self._now
        self._publish_now()
        if now // self._period_ns % TASK_PERIOD == 0:
            self.publish_task()
        with self._wake:
            self._wake.wait_for(self._disturbed, timeout=_IDLE)
            newest = commands.newest()
        if newest > self._newest:
            self._wait_once(lambda: not commands.lacking(now), time.monotonic() + _IDLE_PATIENCE)
        self._newest = newest
        with self._wake:
            self._steered = not commands.lacking(now)
        self._now += self._period_ns

    def _run_period(self) -> None:
        stage, now = self.stage, self._now
        self._listeners = self._count_listeners()
        due = self._tick % self._image_periods == 0
        if due:  # in good time, for a policy that does not wait for it
            stage.scans.publish(stage.world, now)
        stage.cubes.publish(stage.world, now)
        self._publish_now()
        if not self._wait(lambda: not stage.commands.lacking(now), self._lacking_command):
            return
        if due:
            stage.show(stage.world.joint_positions(), stage.world.poses())
            self._show()
            chunk = "the executor's status about a chunk computed from the images of this instant"
            if self._chunks and self._tick % self._chunk_periods == 0 and not self._wait(
                lambda: not self._instruction or self._answered == now, lambda: chunk
            ):
                return
            if self._acknowledged and not self._wait_received():
                return
        success = stage.step()
        self._tick += 1
        self._now += self._period_ns
        if self.time_limit and success:
            self.end("success")
        elif self.time_limit and stage.task.failed:
            self.end("task failed")
        elif self.time_limit and self._tick * stage.period >= self.time_limit - 1e-9:
            self.end("time limit")
        elif self.hold_on_success and (success or self._tick == self._hold_at):
            self._hold_at = self._tick + round(self.rest / stage.period) if success else self._hold_at
            self._held = self._tick == self._hold_at
        elif success or self._tick % TASK_PERIOD == 0:
            self.publish_task()

    def _show(self) -> None:
        for camera in self.stage.cameras:
            camera.publish(self.stage.view, self._now)
        self._shown = self._now

    def _count_listeners(self) -> list[int]:
        publishers = [self.stage.states.publisher, *self._image_publishers()]
        return [publisher.get_subscription_count() for publisher in publishers]

    def _image_publishers(self) -> list[Any]:
        return [
            *self.stage.scans.publishers,
            *(publisher for camera in self.stage.cameras for publisher in camera.publishers),
        ]

    def _say_again(self) -> None:
        """Repeat for subscriptions made since it was published what they missed; the demonstrator may always have
        missed it."""
        before, self._listeners = self._listeners, self._count_listeners()
        late = any(now > then for now, then in zip(self._listeners, before, strict=True))
        if late or not self._chunks:
            self.stage.states.publish(self.stage.world, self._now)
            self.stage.cubes.publish(self.stage.world, self._now)
        if late and self._tick % self._image_periods == 0:
            self.stage.scans.publish(self.stage.world, self._now)
        if late and self._shown == self._now:
            self._show()

    def _disturbed(self) -> bool:
        return self.stopping.is_set() or bool(self._asked)

    def _wait(self, condition: Callable[[], bool], lacking: Callable[[], str]) -> bool:
        """Wait until the condition is met. False if the run ends instead, by request or after `patience`."""
        end = time.monotonic() + self._patience
        while not self._wait_once(condition, end):
            if self.stopping.is_set():
                return False
            self._answer()
            if not self._running:
                return False
            if time.monotonic() >= end:
                self._give_up(lacking())
                return False
        return True

    def _give_up(self, lacking: str) -> None:
        self.failure = f"t = {self._now / NS:.3f} s: {lacking} did not arrive within {self._patience:g} s"
        self.stage.node.get_logger().error(f"the run is aborted: {self.failure}")
        self.end("failure")

    def _wait_once(self, condition: Callable[[], bool], end: float) -> bool:
        """Wait until the condition is met (True), a request arrives, or `end` (time.monotonic). /clock is repeated
        meanwhile, because a node that has just joined the graph may have missed it.
        """
        while True:
            with self._wake:
                patience = min(_REPEAT, max(0.0, end - time.monotonic()))
                self._wake.wait_for(lambda: condition() or self._disturbed(), timeout=patience)
                if condition():
                    return True
                if self._disturbed() or time.monotonic() >= end:
                    return False
            if self._running and not self._held:
                self._say_again()
            self._publish_clock()

    def _wait_received(self) -> bool:
        """Wait until the reliable subscribers have the images. False if the run ends instead."""
        end = time.monotonic() + self._patience
        for publisher in self._image_publishers():
            while not publisher.wait_for_all_acked(Duration(seconds=_REPEAT)):
                self._answer()
                if self.stopping.is_set() or not self._running:
                    return False
                if time.monotonic() >= end:
                    self._give_up(f"the receipt of {publisher.topic_name} by every subscriber")
                    return False
        return True

    def _lacking_command(self) -> str:
        with self._wake:
            groups = self.stage.commands.lacking(self._now)
        return f"a command with this stamp for {' and '.join(groups)}"
