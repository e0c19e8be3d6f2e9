"""The console with a made-up executor in one process: what it hears reaches the page, what the page asks is done."""

import asyncio
import json
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("websockets", reason="websockets (requirements/console.txt) is not installed")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger
from system.support import free_domain
from websockets.asyncio.client import ClientConnection, connect

from vla_ros.core.chunk import ActionChunk, Part, Targets
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.chunks import chunk_message
from vla_ros.messages.stamps import set_stamp
from vla_ros.msg import ActionChunk as ChunkMessage
from vla_ros.msg import ActionPart, ExecutorStatus
from vla_ros.nodes.clock import PlainNode
from vla_ros.nodes.console.traces import BLENDED
from vla_ros.nodes.console_node import ConsoleNode
from vla_ros.nodes.executor.parameters import ExecutorParameters
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos
from vla_ros.nodes.taking import NodeExecutor

ROBOT = RobotSpec.load("so101")
NAMES = list(ROBOT.joint_names)


class Peer:
    """Says what executor, driver and policy would, and notes what it hears. It stops at the third press."""

    def __init__(self, node: Any) -> None:
        self.node, self.presses, self.texts, self.resets = node, 0, [], 0
        self.status = ExecutorStatus(state=ExecutorStatus.EXECUTING, names=NAMES, live_chunks=1, chunk_session=5)
        make = node.create_publisher
        self._status = make(ExecutorStatus, "executor_node/status", STATUS_QOS)
        self._joints, self._image = make(JointState, "joint_states", sensor_qos()), make(
            Image, ROBOT.cameras[0].topic, sensor_qos())
        self._chunks = make(ChunkMessage, "action_chunk", COMMAND_QOS)
        node.create_subscription(Bool, "e_stop", self._press, COMMAND_QOS)
        node.create_subscription(String, "instruction", self._instruct, COMMAND_QOS)
        node.create_service(Trigger, "executor_node/reset_e_stop", self._reset)
        node.create_service(SetBool, "executor_node/take_over", self._lead)
        for name in (*BLENDED, "takeover_topic"):
            node.declare_parameter(name, getattr(ExecutorParameters(), name))
        self.source = node.create_publisher(JointState, "~/takeover/joint_command", sensor_qos())
        node.create_timer(0.05, self._speak)

    def _press(self, message: Bool) -> None:
        self.presses += message.data
        if self.presses == 3:  # the first ones got lost
            self.status.state = ExecutorStatus.E_STOPPED

    def _instruct(self, message: String) -> None:
        self.texts.append(message.data)
        self.status.instruction = message.data

    def _reset(self, request: Any, response: Any) -> Any:
        self.resets += 1
        self.status.state = ExecutorStatus.HOLDING
        response.success = True
        return response

    def _lead(self, request: Any, response: Any) -> Any:
        response.success = not (request.data and self.status.state == ExecutorStatus.E_STOPPED)
        response.message = "done" if response.success else "not taken over: E_STOPPED"
        if response.success:
            self.status.state = ExecutorStatus.TAKEN_OVER if request.data else ExecutorStatus.HOLDING
            self.status.taken_over_by = "<i>leader</i>" if request.data else ""
        return response

    def _speak(self) -> None:
        now = self.node.get_clock().now().nanoseconds
        self._joints.publish(set_stamp(JointState(name=NAMES, position=[0.25] * 6), now))
        image = set_stamp(Image(height=48, width=64, encoding="rgb8", step=192), now)
        image.data = np.full((48, 64, 3), 90, np.uint8).tobytes()
        self._image.publish(image)
        self.status.accepted_chunks += 1
        self.status.chunk_sequence = self.status.accepted_chunks
        chunk = ActionChunk(now, 0.1, Targets((Part(tuple(NAMES), np.full((4, 6), 0.5)),)), 0,
                            self.status.chunk_sequence, 5)
        self._chunks.publish(chunk_message(ChunkMessage, ActionPart, chunk))
        self._status.publish(set_stamp(self.status, now))


@pytest.fixture
def context():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=free_domain())  # where no node of an earlier test is still found
    yield context
    rclpy.try_shutdown(context=context)


def console(context: Any, **values: Any) -> ConsoleNode:
    overrides = [Parameter(name, value=value) for name, value in ({"robot": "so101", "port": 0} | values).items()]
    return ConsoleNode(context=context, parameter_overrides=overrides)


async def until(socket: ClientConnection, kind: str, accept: Callable[[Any], Any]) -> Any:
    """The first item of a kind that `accept` takes."""
    while True:
        message = await asyncio.wait_for(socket.recv(), 60)
        found = [message] if isinstance(message, bytes) else json.loads(message)["items"]
        is_kind = kind == "image" if isinstance(message, bytes) else json.loads(message)["kind"] == kind
        if is_kind and (taken := next((item for item in found if accept(item)), None)) is not None:
            return taken


async def ask(socket: ClientConnection, **wish: Any) -> dict[str, Any]:
    await socket.send(json.dumps(wish))
    return await until(socket, "answer", lambda answer: True)


def on_the_page(context: Any, scenario: Callable[[Peer, ClientConnection], Awaitable[None]], folder: Any) -> None:
    node, other = console(context, recordings=str(folder)), PlainNode("executor_node", context=context)
    peer, executor = Peer(other), NodeExecutor(context=context)
    for one in (node, other):
        executor.add_node(one)
    for trigger in (node.trigger_configure, node.trigger_activate):
        assert trigger() == TransitionCallbackReturn.SUCCESS, node.refusal
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()

    async def open_page() -> None:
        host = f"127.0.0.1:{node._server.port}"
        async with connect(f"ws://{host}/ws?token=", origin=f"http://{host}", proxy=None) as socket:
            await scenario(peer, socket)

    try:
        asyncio.run(open_page())
    finally:
        executor.shutdown()
        thread.join()
        node.end()
        node.destroy_node()
        other.destroy_node()


def test_what_is_heard_reaches_the_page(context, tmp_path):
    async def scenario(peer: Peer, socket: ClientConnection) -> None:
        hello = await until(socket, "hello", lambda item: True)
        assert [joint["name"] for joint in hello["joints"]] == NAMES
        assert hello["joints"][0]["upper"] == pytest.approx(1.91986 - 0.01)  # the margin taken off
        state = await until(socket, "state", lambda item: item["executor"])
        assert state["executor"]["state"] == "executing" and state["policy"] is None
        sample = await until(socket, "sample", lambda item: item["m"][0] is not None and item["b"])
        assert sample["m"] == [0.25] * 6 and sample["b"] == [0.5] * 6 and sample["c"] == [None] * 6
        assert await until(socket, "fate", lambda item: item[1] == "accepted")
        image = await until(socket, "image", lambda item: True)
        index, view, age, _ = struct.unpack("<BBff", image[:10])
        assert (index, view) == (0, 0) and 0 <= age < 60 and image[10:12] == b"\xff\xd8"
        checks = await until(socket, "checks", lambda item: True)
        assert {"camera front", "e-stop", "policy_node"} <= {check["title"] for check in checks}

    on_the_page(context, scenario, tmp_path)


def test_what_the_page_asks_is_done(context, tmp_path):
    async def scenario(peer: Peer, socket: ClientConnection) -> None:
        await until(socket, "state", lambda item: item["executor"])
        await socket.send('{"do": "e_stop"}')  # unarmed, and pressed again until the executor says so
        state = await until(socket, "state", lambda item: item["executor"]["state"] == "e stopped")
        state = await until(socket, "state", lambda item: not item["pressing"])
        assert peer.presses >= 3 and state["armed"] == "" and state["executor"]["ends"] == "reset it, then a chunk"
        await socket.send('{"do": "arm"}')
        for why in ("", "  ", "x", "y" * 301):
            assert "expected 3 to 300" in (await ask(socket, do="reset", why=why))["text"]
        assert peer.resets == 0
        assert (await ask(socket, do="reset", why="all is clear"))["good"] and peer.resets == 1
        # Without task_node an instruction is a message.
        for wrong in ({"text": ""}, {"text": 5}, {"text": "x" * 10_001}, {"text": "go", "limit": -1},
                      {"text": "go", "limit": "inf"}, {"text": "go", "limit": True}):
            assert not (await ask(socket, do="start", **wrong))["good"], wrong
        assert (await ask(socket, do="start", text=" go <b> "))["text"] == "given as a message: no task_node"
        await until(socket, "state", lambda item: item["executor"]["instruction"] == "go <b>")
        assert (await ask(socket, do="pause"))["good"]
        state = await until(socket, "state", lambda item: item["executor"]["instruction"] == "")
        assert state["paused"] == "go <b>" and peer.texts == ["go <b>", ""]
        assert [entry["text"] for entry in state["history"]] == ["go <b>"]
        assert "requested by a page" in (await ask(socket, do="resume", seen=state["at"] - 60))["text"]
        assert peer.texts == ["go <b>", ""]
        assert (await ask(socket, do="resume", seen=state["at"]))["good"]
        state = await until(socket, "state", lambda item: item["executor"]["instruction"] == "go <b>")
        assert state["paused"] == "" and "empty" in (await ask(socket, do="resume"))["text"]
        # What is not there, and what nobody offers.
        assert "no answer" in (await ask(socket, do="record"))["text"]
        assert "is not recording" in (await ask(socket, do="outcome", outcome="success"))["text"]
        assert "no answer" in (await ask(socket, do="change", node="policy_node", transition="activate"))["text"]
        assert "expected one of" in (await ask(socket, do="change", node="sim_node", transition="activate"))["text"]
        for name in ("", "..", "../../etc/passwd", "<b>", "x" * 10_000):
            assert "none that has ended" in (await ask(socket, do="replay", name=name))["text"]
        assert "expected a text" in (await ask(socket, do="replay", name=5))["text"]
        assert "not known here" in (await ask(socket, do="dance"))["text"]

    on_the_page(context, scenario, tmp_path)


def test_a_source_takes_over_and_gives_back_and_every_page_shows_it(context, tmp_path):
    async def scenario(peer: Peer, socket: ClientConnection) -> None:
        state = await until(socket, "state", lambda item: item["source"] and item["source"]["there"])
        assert state["source"]["topic"] == "/executor_node/takeover/joint_command"
        assert "not armed" in (await ask(socket, do="take_over", take=True))["text"]
        await socket.send('{"do": "arm"}')
        for wrong in (None, 1, "yes"):
            assert "expected true or false" in (await ask(socket, do="take_over", take=wrong))["text"]
        assert "requested by a page" in (await ask(socket, do="take_over", take=True, seen=state["at"] - 60))["text"]
        assert (await ask(socket, do="take_over", take=True))["good"]
        state = await until(socket, "state", lambda item: item["executor"]["taken_over_by"])
        assert state["executor"]["state"] == "taken over" and state["executor"]["taken_over_by"] == "<i>leader</i>"
        assert (await ask(socket, do="take_over", take=False))["good"]
        await until(socket, "state", lambda item: not item["executor"]["taken_over_by"])
        peer.status.state = ExecutorStatus.E_STOPPED
        answer = await ask(socket, do="take_over", take=True)
        assert not answer["good"] and "E_STOPPED" in answer["text"]

    on_the_page(context, scenario, tmp_path)


def test_what_cannot_be_offered_is_refused(context, tmp_path):
    first = console(context)
    assert first.trigger_configure() == first.trigger_activate() == TransitionCallbackReturn.SUCCESS
    port = first._server.port
    second = console(context, port=port)
    assert second.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert second.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert f"127.0.0.1:{port}: " in second.refusal and "expected an address of this machine" in second.refusal
    third = console(context, listen="0.0.0.0", token_file=str(tmp_path / "none"))
    assert third.trigger_configure() == TransitionCallbackReturn.FAILURE and "token file" in third.refusal
    fourth = console(context, listen="0.0.0.0")
    assert fourth.trigger_configure() == TransitionCallbackReturn.SUCCESS
    address, warning = fourth.addresses(8080)
    assert len(fourth._server.listen.token) > 20 and address.endswith(f":8080/#{fourth._server.listen.token}")
    assert "can command the robot" in warning
    (tmp_path / "token").write_text("s3cret\n")
    fifth = console(context, token_file=str(tmp_path / "token"))
    assert fifth.trigger_configure() == TransitionCallbackReturn.SUCCESS
    address, warning = fifth.addresses(8080)  # of this machine's users not all
    assert fifth._server.listen.token == "s3cret" and address.endswith("http://127.0.0.1:8080/#s3cret")
    assert "network" not in warning
    for node in (first, second, third, fourth, fifth):
        node.end()
        node.destroy_node()
