"""policy_node: cameras, joint states and an instruction in, chunks out."""

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from rclpy.clock import JumpHandle, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.exceptions import InvalidHandle

from vla_ros.control.admission import Reason
from vla_ros.control.remedies import section, with_section
from vla_ros.core.chunk import ActionChunk as Chunk
from vla_ros.core.errors import InputError
from vla_ros.core.instruction import instruction_id
from vla_ros.core.reminder import Reminder
from vla_ros.core.stream import JOINT_STATES, Stream
from vla_ros.messages.chunks import chunk_message
from vla_ros.messages.observation import NotReady, ObservationBuilder, message_stamp, unexpected_sizes
from vla_ros.messages.stamps import NS
from vla_ros.msg import ActionChunk, ActionPart, ExecutorStatus, PolicyStatus
from vla_ros.nodes.base import ManagedNode, spin_node
from vla_ros.nodes.bounded import subscribe_bounded, subscribe_instruction
from vla_ros.nodes.diagnostics import policy_diagnostic, publish_diagnostics
from vla_ros.nodes.policy_parameters import PolicyParameters
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS
from vla_ros.nodes.silent import silent
from vla_ros.nodes.streams import subscribe
from vla_ros.runtime.arrivals import Arrivals
from vla_ros.runtime.history import history_length, make_sample, observe, observed_streams
from vla_ros.runtime.serving import open_session
from vla_ros.runtime.session import PolicySession
from vla_ros.runtime.trigger import Trigger

_LOOK_PERIOD = 1.0  # s between checks for publishers of missing inputs
# Figures of the status before the first inference, also if there was another policy before.
_NONE_YET = {"chunks": 0, "inferences": 0, "refused_observations": 0, "inference_time": 0.0, "encode_time": 0.0,
             "act_time": 0.0, "flight_time": 0.0, "observation_age": 0.0}  # fmt: skip
_UNREAD = 2.0  # s after the activation that the first inference waits for a reader of its chunk


class PolicyNode(ManagedNode):
    """Keeps the newest messages of each stream; a separate thread infers, so that no callback waits."""

    def __init__(self) -> None:
        self._status = PolicyStatus(state=PolicyStatus.UNCONFIGURED)
        self._wake = threading.Condition()  # guards what callbacks and the inference thread share
        self._running = False
        self._thread: threading.Thread | None = None
        self._session: PolicySession | None = None
        self._clock_watch: JumpHandle | None = None
        self._reminder, self._look_again = Reminder(), 0.0
        self._instruction = ""
        self._episode = 0  # counts starts: activations, instructions, jumps of the clock
        self._followed = True  # the executor, if one is heard, is following chunks
        self._chunk_times: deque[float] = deque(maxlen=100)  # of this activation
        super().__init__("policy_node", PolicyParameters)
        self._status_publisher = self.create_publisher(PolicyStatus, "~/status", STATUS_QOS)
        subscribe_instruction(self, self._take_instruction, self._refuse_message)
        subscribe_bounded(self, ExecutorStatus, "executor_node/status", self._take_executor, STATUS_QOS)
        self.create_steady_timer(0.5, self._publish_status)
        publish_diagnostics(self, lambda: policy_diagnostic(self._status))
        self._publish_status()

    # Lifecycle

    def configure(self) -> None:
        values = self.parameters
        robot = self.load_robot()
        if not values.policy:
            raise InputError("parameter policy: empty, expected a checkpoint folder, a policy file or ws://HOST:PORT")
        if values.threads:
            torch.set_num_threads(values.threads)
        begin = time.perf_counter()
        self._session = session = open_session(
            values.policy, robot, values.device, values.dtype, values.session_options(), values.tokenizer or None
        )
        processor, traits = session.processor, session.traits
        if traits.paced and values.max_rate:
            raise InputError(f"max_rate {values.max_rate:g} Hz: the policy has a memory and is asked once every "
                             f"{processor.step_dt:g} s, expected 0")
        self.get_logger().info(
            f"{session.title} from {values.policy}: "
            f"cameras {list(processor.cameras)}, horizon {processor.horizon or 'unknown'} x {processor.step_dt:g} s, "
            f"ready after {time.perf_counter() - begin:.1f} s"
        )
        # Messages are kept long enough for the oldest step of a history and for streams that are ahead of the others.
        self._builder = ObservationBuilder(
            robot, values.max_age, history_length(processor) + values.max_age, observed_streams(processor),
            processor.optional,
        )
        self._trigger = Trigger(self._builder.paced, [JOINT_STATES], values.max_rate, values.max_age,
                                processor.step_dt if traits.paced else 0.0)
        self._arrivals = Arrivals(self._builder, self._trigger, values.max_age)
        self._met = ""  # the last instruction that the policy was prepared for
        self._sizes: set[str] = set()  # messages about image sizes that were logged
        self._chunks = self.create_lifecycle_publisher(ActionChunk, "action_chunk", COMMAND_QOS)
        for stream in self._builder.streams.values():
            subscribe(self, stream, self._taker(stream), values.reliable_sensors, self._refuse_message)
        self._clock_watch = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=self._clock_jumped,
        )
        self._set_status(PolicyStatus.INACTIVE, policy=f"{session.family} {values.policy}", **_NONE_YET)

    def activate(self) -> None:
        with self._wake:
            self._begin()
            self._session.seed()
            self._trigger.restart()
            self._sequence = 0
            self._read, self._activated = False, time.monotonic()
            self._chunk_times.clear()
            self._running = True
        # One number for each activation, increasing, so that people can order them.
        self._set_status(PolicyStatus.IDLE, session=time.time_ns(), **_NONE_YET)
        self._thread = threading.Thread(target=self._infer_forever, name="inference", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        with self._wake:
            self._running = False
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()  # an inference that has begun ends first; its chunk is still published
            self._thread = None
        with self._wake:
            self._chunk_times.clear()
        self._set_status(PolicyStatus.INACTIVE, waiting_for=[])

    def release(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None
        if self._clock_watch is not None:
            self._clock_watch.unregister()
            self._clock_watch = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._set_status(PolicyStatus.UNCONFIGURED, message="", policy="")

    def refused(self, reason: str) -> None:
        self._set_status(self._status.state, message=reason)

    # Callbacks: nothing here decodes, infers or waits

    def _taker(self, stream: Stream) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            now = self.now_ns()
            stamp = message_stamp(stream, message, now)
            with self._wake:
                waits = self._arrivals.add(stream.name, message, stamp, now)
                if stream.name in self._arrivals.beats:
                    self._wake.notify_all()
            if waits and now:  # without a clock all messages are ahead
                self.get_logger().warning(f"left out until then: {waits}")
                self._set_status(self._status.state, message=waits)

        return take

    def _refuse_message(self, reason: Reason, words: str) -> None:
        self._set_status(self._status.state, message=f"{reason}: {words}")
        self.get_logger().warning(f"{reason}: {words} ({section(reason)})", throttle_duration_sec=5.0)

    def _take_instruction(self, text: str) -> None:
        if text != self._instruction and self._session is not None:
            unknown = self._session.processor.unknown_words(text)
            if unknown:
                self.get_logger().warning(f"instruction {text!r}: the policy does not know {', '.join(unknown)}")
        with self._wake:
            if text != self._instruction:
                self._begin()
            self._instruction = text
            self._status.instructions += 1
            self._wake.notify_all()
        self._set_status(self._status.state)

    def _take_executor(self, status: ExecutorStatus) -> None:
        holds = status.state == ExecutorStatus.HOLDING and status.cause != ExecutorStatus.CAUSE_TAKEOVER_PAUSED
        self._followed = holds or status.state in (ExecutorStatus.APPROACHING, ExecutorStatus.EXECUTING)

    def _clock_jumped(self, jump: TimeJump | None = None) -> None:
        with self._wake:
            self._arrivals.clear()
            self._begin()

    def _begin(self) -> None:
        """Start again: an inference under way is discarded, and earlier observations no longer count."""
        with self._wake:
            self._episode += 1
            if self._session is not None:
                self._session.begin()

    # The inference thread

    def _infer_forever(self) -> None:
        while True:
            with self._wake:
                target = None
                while self._running and target is None:
                    target = self._next_target()
                    if target is None:
                        self._wake.wait(timeout=0.1)  # ages grow although nothing arrives
                if not self._running:
                    return
                text, episode = self._instruction, self._episode
            try:
                self._infer(target, text, episode)
            except NotReady as error:
                # These messages are used: the next attempt needs newer ones.
                self._refuse(error)
            except InputError as error:
                self._set_status(PolicyStatus.FAILED, message=str(error),
                                 refused_observations=self._status.refused_observations + 1)
                self.get_logger().error(with_section(error), throttle_duration_sec=5.0)
            except InvalidHandle:
                return  # the publisher is destroyed: the node is ending
            except Exception as error:
                self._set_status(PolicyStatus.FAILED, message=f"{type(error).__name__}: {error}")
                self.get_logger().error(f"inference failed: {traceback.format_exc()}", throttle_duration_sec=5.0)

    def _next_target(self) -> int | None:
        """The time to observe, if an inference is due. Otherwise reports what is missing. Holds the lock."""
        now = self.now_ns()
        if self._arrivals.advance(now):
            self._clock_jumped()
        if not self._instruction:
            if self._status.state != PolicyStatus.IDLE:
                self._set_status(PolicyStatus.IDLE, waiting_for=[], message="")
            return None
        if not self._is_read():
            return None
        target = self._trigger.target(now)
        # A stream that is ahead of /clock is no problem: it is checked at the time to observe.
        problems = self._trigger.problems(now) | self._builder.problems(now if target is None else target)
        if problems:
            problems = self._arrivals.explained(problems, now)
            if tuple(self._status.waiting_for) != tuple(problems) or self._status.state != PolicyStatus.WAITING:
                self._refuse(NotReady(problems))
            elif time.monotonic() >= self._look_again:
                self._wait_for(NotReady(problems))
            return None
        return target

    def _is_read(self) -> bool:
        """Whether those that want chunks are connected. A chunk that is published before is lost, and in lockstep time
        stands still, so that no other would follow."""
        if not self._read:
            wanted = max(1, self.count_subscribers(self._chunks.topic_name))
            late = time.monotonic() - self._activated > _UNREAD  # nobody wants them, or somebody cannot be reached
            self._read = late or self._chunks.get_subscription_count() >= wanted
        return self._read

    def _refuse(self, why: NotReady) -> None:
        self._status.refused_observations += 1
        self._wait_for(why)

    def _wait_for(self, why: NotReady) -> None:
        """Report what is missing and whether it has a publisher, checked once a second."""
        missing = [stream for name, stream in self._builder.streams.items() if name.split("/")[0] in why.streams]
        words = "; ".join(filter(None, (str(why), silent(self, missing))))
        self._set_status(PolicyStatus.WAITING, waiting_for=list(why.streams), message=words)
        if self._reminder.due(words):
            self.get_logger().warning(f"waiting for inputs: {words} ({section('waiting')})")
        self._look_again = time.monotonic() + _LOOK_PERIOD

    def _infer(self, target_ns: int, text: str, episode: int) -> None:
        session, processor = self._session, self._session.processor
        with self._wake:
            if episode != self._episode:
                return
            self._trigger.began(self._trigger.newest())  # used, even if one of them cannot be decoded
        steps = observe(lambda stamp, names: self._builder.build(stamp, text, names), target_ns, processor)
        observation = steps[0]
        with self._wake:
            # after a jump back these stamps would be in the future, and nothing would be due
            if episode != self._episode:
                return
            self._trigger.began(observation.stamps_ns)
        for said in unexpected_sizes(self._builder.robot, observation.images) - self._sizes:
            self._sizes.add(said)
            self.get_logger().warning(said)
        if self._status.state == PolicyStatus.WAITING:  # not longer: an inference may take seconds
            self._set_status(PolicyStatus.RUNNING, waiting_for=[], message="")
        sample = make_sample(steps, processor, text)
        if text != self._met and not session.traits.pads:  # shapes may be new: recorded before the robot follows them
            session.meet([sample])
            self._met = text  # not if it was refused: an engine may answer otherwise than torch
            with self._wake:
                self._trigger.restart()  # then it observes what is newest; in lockstep nothing newer would arrive
            return
        (result,) = session.infer([sample])
        with self._wake:
            if episode != self._episode:
                session.begin()  # the new episode began with this sample
                return
        chunk = Chunk(
            stamp_ns=observation.stamp_ns + round(result.lead * NS),
            step_dt=processor.step_dt,
            targets=result.targets,
            instruction_id=instruction_id(text),
            sequence=self._sequence,
            session=self._status.session,
            inference_time=result.total_time,
        )
        self._sequence += 1
        self._chunks.publish(chunk_message(ActionChunk, ActionPart, chunk))
        age = (self.now_ns() - observation.stamp_ns) / NS
        if self._followed:  # otherwise the robot does not follow this chunk, and the next one must not continue it
            session.delivered(age)
        if session.traits.paced and result.total_time > processor.step_dt:
            self.get_logger().warning(
                f"an inference took {result.total_time:.3f} s; the policy has a memory and must be asked every "
                f"{processor.step_dt:g} s", throttle_duration_sec=5.0,
            )
        with self._wake:
            self._chunk_times.append(time.monotonic())
        self._set_status(
            PolicyStatus.RUNNING,
            message="",
            waiting_for=[],
            chunks=self._sequence,
            inferences=self._status.inferences + 1,
            inference_time=result.total_time,
            encode_time=result.encode_time,
            act_time=result.act_time,
            flight_time=result.flight_time,
            observation_age=age,
        )

    def _rate(self) -> float:
        """Hz of chunks over the last second or more; less and less once none comes. Holds the lock."""
        times = self._chunk_times
        recent = [moment for moment in times if moment >= times[-1] - 1.0]
        if len(recent) < 3:
            recent = list(times)[-3:]
        if len(recent) < 2:
            return 0.0
        every = (recent[-1] - recent[0]) / (len(recent) - 1)
        return 1.0 / max(every, time.monotonic() - recent[-1])

    # Status

    def _set_status(self, state: int, **values: object) -> None:
        with self._wake:
            if state in (PolicyStatus.IDLE, PolicyStatus.RUNNING):  # the next missing input is reported again
                self._reminder = Reminder()
            self._status.state = state
            for name, value in values.items():
                setattr(self._status, name, value)
            self._publish_status()

    def _publish_status(self) -> None:
        with self._wake:
            status = self._status
            status.header.stamp = self.get_clock().now().to_msg()
            status.instruction = self._instruction
            status.instruction_id = instruction_id(self._instruction)
            status.rate = self._rate()
            self._status_publisher.publish(status)


def main(args: list[str] | None = None) -> int:
    return spin_node(PolicyNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
