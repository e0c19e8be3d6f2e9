"""Actions of the console: e-stop and its reset, takeovers, instructions and tasks, transitions of nodes."""

import asyncio
import time
from collections import deque
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionClient
from rclpy.task import Future
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from vla_ros.action import RunInstruction
from vla_ros.core.errors import InputError
from vla_ros.core.instruction import instruction_problem
from vla_ros.core.text import plain
from vla_ros.nodes.names import constants
from vla_ros.nodes.qos import COMMAND_QOS

ANSWER = 5.0  # s for a service to answer
STOP_ANSWER = 1.0  # s for task_node to cancel a task, before its instruction is withdrawn without it
TRANSITION_TIME = 120.0  # s
PRESS_TIME = 5.0  # s for which a press is repeated, with every `look`
_HISTORY = 30
_RESULTS = constants(RunInstruction.Result)
LONGEST_REASON = 300  # characters
_TRANSITIONS = {
    "activate": Transition.TRANSITION_ACTIVATE, "deactivate": Transition.TRANSITION_DEACTIVATE,
    "configure": Transition.TRANSITION_CONFIGURE, "cleanup": Transition.TRANSITION_CLEANUP,
}  # fmt: skip
NODES = ("policy_node", "executor_node", "task_node")  # nodes whose state may be changed from here


class Hands:
    """Used from the thread of an asyncio loop; another thread spins the node.

    Attributes:
        history: instructions, the newest first, as the page shows them.
        paused: the text that was withdrawn by a pause, or "".
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self.history: deque[dict[str, Any]] = deque(maxlen=_HISTORY)
        self.paused = ""
        self._e_stop = node.create_publisher(Bool, "e_stop", COMMAND_QOS)
        self._instruction = node.create_publisher(String, "instruction", COMMAND_QOS)
        self._reset = node.create_client(Trigger, "executor_node/reset_e_stop")
        self._take_over = node.create_client(SetBool, "executor_node/take_over")
        self._states = {name: node.create_client(ChangeState, f"{name}/change_state") for name in NODES}
        self._tasks = ActionClient(node, RunInstruction, "run_instruction")
        self._pressed_until = 0.0
        self._goal: Any = None  # the handle of our running task
        self._stops = 0  # how many times the instruction was withdrawn
        self._feedback: dict[str, Any] = {}
        self.loop: asyncio.AbstractEventLoop | None = None

    def destroy(self) -> None:
        self._tasks.destroy()

    # The e-stop

    def press(self) -> None:
        """Publish once now, and again with each `look` until the executor's status says that it has stopped."""
        self._pressed_until = time.monotonic() + PRESS_TIME
        self._e_stop.publish(Bool(data=True))

    def look(self, e_stopped: bool) -> bool:
        """`e_stopped`: by the executor's status. True if a press ends without that."""
        if not self._pressed_until:
            return False
        over = not self.pressing
        if e_stopped or over:
            self._pressed_until = 0.0
        else:
            self._e_stop.publish(Bool(data=True))
        return over and not e_stopped

    @property
    def pressing(self) -> bool:
        """Whether a press is still unconfirmed."""
        return time.monotonic() < self._pressed_until

    async def reset(self, who: str, why: str) -> str:
        why = plain(why.strip())
        if not 3 <= len(why) <= LONGEST_REASON:
            raise InputError(f"reset: a reason of {len(why)} characters, expected 3 to {LONGEST_REASON}: why is it "
                             "safe to move again?")
        if self.pressing:  # possibly by another page, at this moment
            raise InputError("reset: the e-stop is pressed, and the executor has not said yet that it has stopped")
        self._node.get_logger().warning(f"e-stop reset by {who}: {why}")
        answer = await self.ask(self._reset, Trigger.Request(), "executor_node/reset_e_stop")
        if not answer.success:
            raise InputError(f"the e-stop is not reset: {answer.message}")
        return answer.message or "e-stop reset"

    async def take_over(self, who: str, take: bool) -> str:
        """Lets the source that executor_node listens to command in place of the policy, or gives back."""
        answer = await self.ask(self._take_over, SetBool.Request(data=take), "executor_node/take_over")
        self._node.get_logger().info(f"asked by {who}: {plain(answer.message, 300)}")
        if not answer.success:
            raise InputError(answer.message)
        return answer.message

    # Instructions

    async def start(self, who: str, text: str, limit: float) -> str:
        """As a task if task_node is running, else as a message."""
        text = text.strip()
        if not text:
            raise InputError("instruction: empty, expected what the robot should do")
        if problem := instruction_problem(text):
            raise InputError(problem)
        self.paused = ""
        entry = self._remember(text, who)
        if not self._tasks.server_is_ready():
            self._instruction.publish(String(data=text))
            entry["result"] = "given as a message: without task_node, nothing reports how it ends"
            return "given as a message: no task_node"
        goal, stops = RunInstruction.Goal(instruction=text, time_limit=limit), self._stops
        sent = self._tasks.send_goal_async(goal, feedback_callback=self._take_feedback)
        try:
            handle = await self._in_time(sent, ANSWER, "task_node")
        except InputError:
            sent.add_done_callback(_call_off)  # nothing waits for a task that begins later
            raise
        if not handle.accepted:
            raise InputError("task_node rejected the goal, expected it to accept every goal")
        if stops != self._stops:
            _call_off(sent)
            raise InputError("the task was stopped before it began")
        self._goal, self._feedback = handle, {}
        handle.get_result_async().add_done_callback(lambda done: self._call(self._ended, handle, entry, done))
        return "the task begins"

    def _ended(self, handle: Any, entry: dict[str, Any], done: Future) -> None:
        result = done.result().result
        word = _RESULTS[result.error_code]
        if result.error_code == RunInstruction.Result.CANCELED and self.paused == entry["text"]:
            word = "paused"
        entry |= {"code": int(result.error_code), "word": word, "result": plain(result.message, 300),
                  "elapsed": round(result.elapsed, 1)}  # fmt: skip
        if self._goal is handle:
            self._goal, self._feedback = None, {}

    def _take_feedback(self, message: Any) -> None:
        now = message.feedback
        self._feedback = {"elapsed": round(now.elapsed, 1), "message": plain(now.message, 300)}

    async def stop(self, pause: bool, text: str) -> str:
        """Withdraw the instruction: the robot brakes and holds. `text`: what the executor follows."""
        self.paused = text if pause else ""
        self._stops += 1
        goal = self._goal
        try:
            if goal is not None and self._tasks.server_is_ready():
                answer = await self._in_time(goal.cancel_goal_async(), STOP_ANSWER, "task_node")
                if answer.goals_canceling:
                    return "the task is cancelled" + (", to be resumed" if pause else "")
        except InputError as error:  # it stops all the same
            self._node.get_logger().error(str(error))
        if goal is not None and self._goal is goal:  # the task or task_node has ended
            self._goal, self._feedback = None, {}
        self._instruction.publish(String(data=""))
        return "paused: the instruction is withdrawn" if pause else "stopped: the instruction is withdrawn"

    def heard(self, text: str) -> None:
        """An instruction arrived on the topic; one of our own is already the newest entry."""
        text = text.strip()
        if text:  # ends the pause
            self.paused = ""
        if text and not (self.history and self.history[0]["text"] == text and not self.history[0].get("word")):
            self._remember(text, "another program")

    def _remember(self, text: str, who: str) -> dict[str, Any]:
        entry = {"text": plain(text, 500), "by": who, "at": time.time()}
        self.history.appendleft(entry)
        return entry

    @property
    def task(self) -> dict[str, Any] | None:
        """State of our task; None if none is running."""
        return None if self._goal is None else self._feedback

    # Nodes

    async def change(self, who: str, name: str, transition: str) -> str:
        if name not in self._states or transition not in _TRANSITIONS:
            raise InputError(f"{plain(name, 40)} {plain(transition, 40)}: expected one of {', '.join(NODES)}, and "
                             f"{', '.join(_TRANSITIONS)}")
        self._node.get_logger().info(f"{transition} of {name} by {who}")
        request = ChangeState.Request(transition=Transition(id=_TRANSITIONS[transition]))
        answer = await self.ask(self._states[name], request, name, TRANSITION_TIME)
        if not answer.success:
            raise InputError(f"{name} did not {transition}: its log and its status say why")
        return f"{name}: {transition} done"

    # Waiting for ROS

    async def ask(self, client: Any, request: Any, what: str, patience: float = ANSWER) -> Any:
        """The response of a service. Raises InputError if there is none."""
        if not client.service_is_ready():
            raise InputError(f"{what}: no answer, expected the node to be running")
        future = client.call_async(request)
        try:
            return await self._in_time(future, patience, what)
        except InputError:
            client.remove_pending_request(future)
            raise

    async def _in_time(self, future: Future, patience: float, what: str) -> Any:
        done: asyncio.Future = self.loop.create_future()

        def take(ended: Future) -> None:
            self._call(_pass_on, done, ended)

        future.add_done_callback(take)
        try:
            return await asyncio.wait_for(done, patience)
        except TimeoutError:
            raise InputError(f"{what} did not answer within {patience:g} s") from None

    def _call(self, function: Any, *args: Any) -> None:
        """Call it in the loop's thread, as long as that exists."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *args)


def _call_off(sent: Future) -> None:
    """Cancel a task as soon as it is accepted."""
    if sent.exception() is None and sent.result().accepted:
        sent.result().cancel_goal_async()


def _pass_on(done: asyncio.Future, ended: Future) -> None:
    if not done.done():
        if (error := ended.exception()) is not None:
            done.set_exception(InputError(f"{type(error).__name__}: {error}"))
        else:
            done.set_result(ended.result())
