"""Recording from the page: episodes of a recorder_node, each a bag, with their outcome."""

import time
from collections import deque
from pathlib import Path
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from vla_ros.core.errors import InputError
from vla_ros.core.text import plain
from vla_ros.msg import Outcome
from vla_ros.nodes.console.hands import TRANSITION_TIME, Hands
from vla_ros.nodes.qos import COMMAND_QOS

NODE = "recorder_node"
OUTCOMES = {"success": Outcome.SUCCESS, "failure": Outcome.FAILURE, "discard": Outcome.ABORTED}
DISCARDED = "discarded"  # folder beside the bags
_KEPT = 50


class Episodes:
    """The recorder records while it is active, each episode into a separate bag below `folder`.

    Attributes:
        list: episodes of this console, the newest first, as the page shows them.
        recording: the entry of the list that is being recorded, or None.
    """

    def __init__(self, node: Any, hands: Hands, folder: Path) -> None:
        self._node, self._hands, self._folder = node, hands, folder
        self.list: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.recording: dict[str, Any] | None = None
        self._outcome = node.create_publisher(Outcome, "outcome", COMMAND_QOS)
        self._state = node.create_client(GetState, f"{NODE}/get_state")
        self._change = node.create_client(ChangeState, f"{NODE}/change_state")
        self._parameters = node.create_client(SetParameters, f"{NODE}/set_parameters")

    @property
    def there(self) -> bool:
        """Whether a recorder is running."""
        return self._state.service_is_ready()

    async def start(self, who: str, instruction: str) -> str:
        state = await self._recorder_state()
        if state == State.PRIMARY_STATE_ACTIVE:
            raise InputError(f"{NODE} is already recording; end that first")
        if state == State.PRIMARY_STATE_UNCONFIGURED:
            await self._bring(Transition.TRANSITION_CONFIGURE, "configure")
        path = self._folder / time.strftime("%Y-%m-%d_%H-%M-%S")
        request = SetParameters.Request(parameters=[Parameter("output", value=str(path)).to_parameter_msg()])
        (result,) = (await self._hands.ask(self._parameters, request, NODE)).results
        if not result.successful:
            raise InputError(f"{NODE}: {result.reason}")
        await self._bring(Transition.TRANSITION_ACTIVATE, "activate")
        self.recording = {"name": path.name, "folder": str(path), "at": time.time(), "by": who, "outcome": "",
                          "instruction": plain(instruction, 200), "note": ""}  # fmt: skip
        self.list.appendleft(self.recording)
        return f"recording to {path}"

    async def end(self, who: str, outcome: str, note: str) -> str:
        """End with an outcome, which is written to the bag; discarded bags are moved, not deleted."""
        if outcome not in OUTCOMES:
            raise InputError(f"outcome {plain(outcome, 40)!r}, expected one of {', '.join(OUTCOMES)}")
        if self.recording is None:
            raise InputError("this console is not recording")
        episode, note = self.recording, plain(note.strip(), 500)
        message = ": ".join(filter(None, (DISCARDED if outcome == "discard" else "", note)))
        self._outcome.publish(Outcome(header=Header(stamp=self._node.get_clock().now().to_msg()),
                                      outcome=OUTCOMES[outcome], by=f"operator {who}", message=message))
        # The recorder handles them in this order, so it gets the outcome before it ends the bag.
        early = await self._recorder_state() != State.PRIMARY_STATE_ACTIVE
        if not early:
            await self._bring(Transition.TRANSITION_DEACTIVATE, "deactivate")
        self.recording = None
        episode |= {"outcome": outcome, "note": note, "length": round(time.time() - episode["at"], 1)}
        if outcome == "discard":
            return self._put_aside(episode)
        ended = f"; {NODE} had already ended it, its log says why: the outcome is not in the bag" if early else ""
        return f"{outcome}: {episode['name']}{ended}"

    def ended(self, name: str) -> dict[str, Any]:
        """The episode of that name. Raises InputError where there is none, or it is being recorded."""
        for episode in self.list:
            if episode["name"] == name and episode is not self.recording:
                return episode
        raise InputError(f"episode {plain(name, 60)!r}: none that has ended, expected one of the list")

    def _put_aside(self, episode: dict[str, Any]) -> str:
        old = Path(episode["folder"])
        new = old.parent / DISCARDED / old.name
        try:
            new.parent.mkdir(exist_ok=True)
            old.rename(new)
        except OSError as error:  # the recorder may be on another machine
            return f"discarded: {old.name}; {old} could not be moved: {error.strerror}"
        episode["folder"] = str(new)
        return f"discarded: {old.name} is now in {new.parent}"

    async def _recorder_state(self) -> int:
        return (await self._hands.ask(self._state, GetState.Request(), NODE)).current_state.id

    async def _bring(self, transition: int, what: str) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        if not (await self._hands.ask(self._change, request, NODE, TRANSITION_TIME)).success:
            raise InputError(f"{NODE} did not {what}: its log says why")
