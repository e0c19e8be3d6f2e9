"""task_node: an instruction as a cancellable action with a typed result, one at a time."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future
from std_msgs.msg import Bool, Header, String

from vla_ros.action import RunInstruction
from vla_ros.control.task import VERDICTS, Outcome, goal_problem, problem
from vla_ros.core.instruction import instruction_id
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.msg import Outcome as OutcomeMessage
from vla_ros.nodes.base import ManagedNode, spin_node
from vla_ros.nodes.bounded import subscribe_bounded, subscribe_instruction
from vla_ros.nodes.parameters import NodeParameters, parameter
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS

REPEAT_AFTER, REPEAT_UNTIL = 1.0, 10.0  # s after an instruction in which it is repeated for a node that missed it
CONFIRMED_WITHIN = 2.0  # s in which an executor that waits for an instruction (UNCONFIRMED) accepts a task's
PERIOD = 0.1  # s between checks of the running task, and between feedbacks


@dataclass(frozen=True)
class TaskParameters(NodeParameters):
    silence_limit: float = parameter(
        2.0, "a node whose status was not heard for this long counts as gone", unit="s", low=0.2, high=60.0
    )


class Run:
    """One accepted goal until its end."""

    def __init__(self, handle: ServerGoalHandle, now_ns: int) -> None:
        self.handle, self.goal, self.begin_ns = handle, handle.request, now_ns
        self.instruction = handle.request.instruction.strip()
        self.done: Future[tuple[Outcome, str]] = Future()
        self.began = False
        self.confirms_until = 0.0  # s of steady time; before it the executor may still wait for the instruction
        self.success: Any = None  # the subscription of the success topic

    def end(self, outcome: Outcome, message: str) -> None:
        """End the run; only the first end counts."""
        if not self.done.done():
            self.done.set_result((outcome, message))


class Repeat:
    """An instruction that was given, until policy and executor follow it.

    A publisher that exits at once (`ros2 topic pub --once`) reaches only the nodes that have discovered it by then. A
    node missed the text if it has received no instruction since and follows another one; only then is it repeated. If
    any node has received a newer instruction, in particular an empty one, this ends.
    """

    def __init__(self, text: str, before: Mapping[str, Any]) -> None:
        """`before`: node -> its status when the text arrived."""
        self.text, self.over, self._heard = text, False, time.monotonic()
        self._next = self._heard + REPEAT_AFTER
        self._id, self._before = instruction_id(text), {node: _taken(status) for node, status in before.items()}

    def missed(self, statuses: Mapping[str, tuple[Any, float]]) -> list[str]:
        """The nodes for which the text is to be repeated now.

        `statuses`: node -> its last status, and its time of arrival.
        """
        now = time.monotonic()
        if now < self._next:
            return []
        self._next = now + REPEAT_AFTER
        behind = [node for node in self._before if statuses[node][0].instruction_id != self._id]
        told_since = any(_taken(statuses[node][0]) != self._before[node] for node in behind)
        self.over = not behind or told_since or now > self._heard + REPEAT_UNTIL
        if self.over:
            return []
        known = {node: came for node, (status, came) in statuses.items() if status.state != ExecutorStatus.UNCONFIGURED}
        return [node for node in behind if known.get(node, -math.inf) > self._heard + REPEAT_AFTER / 2]


def _taken(status: Any) -> tuple[int, int]:
    return status.instructions, status.instruction_id


class TaskNode(ManagedNode):
    """Offers `run_instruction` (vla_ros/RunInstruction); publishes the goal's text on `instruction`, empty at its end.

    One task runs at a time: a newer goal, or another text on `instruction`, pre-empts it. Every goal is accepted and
    gets a result with a code and a message, even if it cannot begin. When a task ends for any reason except a newer
    instruction, the instruction is withdrawn, so that the robot brakes and holds.
    """

    def __init__(self, **options: Any) -> None:
        self._server: ActionServer | None = None
        self._run: Run | None = None
        self._waiting: list[Run] = []  # accepted, but not executing yet
        super().__init__("task_node", TaskParameters, **options)

    # Lifecycle

    def configure(self) -> None:
        self._newest: dict[str, tuple[Any, float]] = {}  # node -> its last status, and its time of arrival
        self._repeat: Repeat | None = None
        self._said: list[str] = []  # what we published and have not received back yet
        self._instructions = self.create_publisher(String, "instruction", COMMAND_QOS)
        self._outcomes = self.create_publisher(OutcomeMessage, "outcome", COMMAND_QOS)
        subscribe_instruction(self, self._take_instruction)
        for node, kind in (("policy_node", PolicyStatus), ("executor_node", ExecutorStatus)):
            subscribe_bounded(self, kind, f"{node}/status", partial(self._take_status, node), STATUS_QOS)
        self.create_steady_timer(PERIOD, self._look)
        self._server = ActionServer(
            self,
            RunInstruction,
            "run_instruction",
            execute_callback=self._execute,
            goal_callback=lambda request: GoalResponse.ACCEPT,
            handle_accepted_callback=self._accept,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )

    def deactivate(self) -> None:
        if self._run is not None:
            self._run.end(Outcome.NOT_ACTIVE, "task_node is deactivated")
            self._say("")

    def release(self) -> None:
        if self._server is not None:
            self._server.destroy()
            self._server = None

    # Messages of other nodes

    def _take_status(self, node: str, message: Any) -> None:
        self._newest[node] = (message, time.monotonic())
        self._look()

    def _status(self, node: str) -> Any:
        """The last status of a node; None if it was not heard lately."""
        message, came = self._newest.get(node, (None, -math.inf))
        return message if time.monotonic() - came <= self.parameters.silence_limit else None

    def _take_instruction(self, text: str) -> None:
        if text in self._said:
            self._said.remove(text)
            return
        self._repeat = Repeat(text, {node: message for node, (message, _) in self._newest.items()})
        if self._run is not None and text != self._run.instruction:
            self._run.end(Outcome.PREEMPTED, f"a message on instruction took over: {text[:100]!r}")

    def _say(self, text: str) -> None:
        self._repeat = Repeat(text, {node: message for node, (message, _) in self._newest.items()})
        self._publish(text)

    def _publish(self, text: str) -> None:
        self._said = [*self._said[-9:], text]
        self._instructions.publish(String(data=text))

    def _look_for_missed(self) -> None:
        repeat = self._repeat
        if repeat is not None and not repeat.over and self.is_active and (nodes := repeat.missed(self._newest)):
            self.get_logger().warning(f"{' and '.join(nodes)} missed the instruction {repeat.text[:100]!r}: "
                                      "repeating it")
            self._publish(repeat.text)

    # The action

    def _accept(self, handle: ServerGoalHandle) -> None:
        goal, run = handle.request, Run(handle, self.now_ns())
        wrong = goal_problem(goal.instruction, goal.time_limit) or self._listen(run)
        executor = self._status("executor_node")
        trouble = _problem(self._status("policy_node"), executor, confirms=True)
        if wrong:
            run.end(Outcome.INVALID_GOAL, wrong)
        elif not self.is_active:
            run.end(Outcome.NOT_ACTIVE, "task_node is not active")
        elif trouble:
            run.end(*trouble)
        else:
            if self._run is not None:
                self._run.end(Outcome.PREEMPTED, f"a newer goal took over: {run.instruction[:100]!r}")
            self._run, run.began = run, True
            if _unconfirmed(executor):
                run.confirms_until = time.monotonic() + CONFIRMED_WITHIN
            self.get_logger().info(f"task begins: {run.instruction!r}")
            self._say(run.instruction)
        self._waiting.append(run)
        handle.execute()

    def _listen(self, run: Run) -> str:
        """Subscribe to the success topic, if there is one. Returns what is wrong with it, or ""."""
        topic = run.goal.success_topic
        try:
            if topic:
                run.success = self.create_subscription(Bool, topic, lambda m: self._take_success(run, m), COMMAND_QOS)
        except Exception as error:  # not a topic's name, a topic of another type, or one that security does not permit
            return f"success_topic {topic[:100]!r}: {str(error).splitlines()[0]}"
        return ""

    def _take_success(self, run: Run, message: Bool) -> None:
        if message.data:
            run.end(Outcome.SUCCESS, f"{run.goal.success_topic} said true")

    def _elapsed(self, run: Run) -> float:
        return max(0.0, (self.now_ns() - run.begin_ns) * 1e-9)

    def _look(self) -> None:
        """End the running task when it is due, and send feedback to its client."""
        self._look_for_missed()
        run = self._run
        if run is None or run.done.done():
            return
        elapsed = self._elapsed(run)
        policy, executor = self._status("policy_node"), self._status("executor_node")
        trouble = _problem(policy, executor, confirms=time.monotonic() < run.confirms_until)
        if run.handle.is_cancel_requested:
            run.end(Outcome.CANCELED, "the client canceled it")
        elif trouble:
            run.end(*trouble)
        elif 0 < run.goal.time_limit <= elapsed:
            run.end(Outcome.TIME_LIMIT, f"{run.goal.time_limit:g} s are over")
        else:
            run.handle.publish_feedback(
                RunInstruction.Feedback(
                    executor_state=executor.state,
                    policy_state=policy.state,
                    message=executor.message or policy.message,
                    elapsed=elapsed,
                    chunk_age=executor.chunk_age,
                    inference_time=policy.inference_time,
                )
            )

    def _verdict(self, run: Run, outcome: Outcome, result: RunInstruction.Result) -> OutcomeMessage:
        """The outcome of a run, for recordings: its goal and its result."""
        verdict, by = VERDICTS[outcome]
        return OutcomeMessage(
            header=Header(stamp=self.get_clock().now().to_msg()), outcome=verdict, by=by, message=result.message,
            instruction=run.instruction, goal_id=run.handle.goal_id.uuid, time_limit=run.goal.time_limit,
            success_topic=run.goal.success_topic, elapsed=result.elapsed,
        )  # fmt: skip

    async def _execute(self, handle: ServerGoalHandle) -> RunInstruction.Result:
        run = next(run for run in self._waiting if run.handle.goal_id == handle.goal_id)
        self._waiting.remove(run)
        outcome, message = await run.done
        result = RunInstruction.Result(error_code=int(outcome), message=message, elapsed=self._elapsed(run))
        self.get_logger().info(f"task ends: {outcome.name}: {message}")
        if run.began:
            self._outcomes.publish(self._verdict(run, outcome, result))
        if run.success is not None:
            self.destroy_subscription(run.success)
        if self._run is run:
            self._run = None
            if outcome != Outcome.PREEMPTED:
                self._say("")
        if outcome == Outcome.SUCCESS:
            handle.succeed()
        elif outcome == Outcome.CANCELED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return result


def _unconfirmed(executor: ExecutorStatus | None) -> bool:
    return executor is not None and executor.cause == ExecutorStatus.CAUSE_UNCONFIRMED


def _problem(
    policy: PolicyStatus | None, executor: ExecutorStatus | None, confirms: bool
) -> tuple[Outcome, str] | None:
    """`confirms`: the task's instruction is what an executor with the cause UNCONFIRMED waits for."""
    state = executor and executor.state
    if confirms and _unconfirmed(executor):
        state = ExecutorStatus.HOLDING
    return problem(policy and policy.state, state, executor.message if executor else "")


def main(args: list[str] | None = None) -> int:
    return spin_node(TaskNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
