"""A replay in the page: computed once by another process, sent with its pictures as the page takes them."""

import asyncio
import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="the package of the nodes needs ROS 2")
pytest.importorskip("websockets", reason="websockets (requirements/console.txt) is not installed")

from vla_ros.bags.overlay import Overlay
from vla_ros.cli import replay
from vla_ros.cli.options import Parser
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.core.robot import RobotSpec
from vla_ros.nodes.console import replays as module
from vla_ros.nodes.console.replays import Replays
from vla_ros.nodes.console.server import Session

ROBOT = RobotSpec.load("so101")
POLICIES = ["one", "two"]


def write(folder) -> None:
    overlay, state = Overlay(folder, ROBOT, POLICIES, 0.1), np.full(6, 0.25)
    for index in range(5):
        images = {camera.name: np.full((48, 64, 3), 40 * index, np.uint8) for camera in ROBOT.cameras}
        frame = SimpleNamespace(index=index, error=None, observation=Observation(0, images, state), action=state,
                                episode=SimpleNamespace(cut=SimpleNamespace(instruction="<b>go")))
        overlay.take(frame, [np.full((3, 6), 0.5)] * 3 if index == 0 else [])
    overlay.finish([SimpleNamespace(name=name, score=0.01) for name in (*POLICIES, "hold still")])


def test_a_replay_is_sent_with_its_pictures_one_after_the_other(tmp_path):
    replays, sent, most = Replays("so101", POLICIES, ""), [], []
    write(tmp_path / replays._folder / "bag")

    class Socket:
        transport = None

        async def send(self, message) -> None:
            sent.append(message)
            most.append(len(session._waiting.get("picture", ())))

    session = Session(Socket(), "page")

    async def scenario() -> None:
        later = []
        writing = asyncio.create_task(session.write())
        assert await replays.show(session, {"folder": str(tmp_path / "bag")}, later.append) == "replay of bag"
        await asyncio.wait_for(later[0], 30)
        while session._waiting:
            await asyncio.sleep(0.005)
        writing.cancel()

    asyncio.run(scenario())
    (data,) = json.loads(sent[0])["items"]
    assert data["name"] == "bag" and data["episodes"][0]["instruction"] == "<b>go" and "pictures" not in sent[0]
    assert [chunk["policy"] for chunk in data["episodes"][0]["chunks"]] == [0, 1]
    heads = [struct.unpack("<BHf", picture[:7]) for picture in sent[1:]]
    assert [head[:2] for head in heads] == [(128, 0), (129, 0)] * 3
    assert [round(head[2], 3) for head in heads] == [0.0, 0.0, 0.2, 0.2, 0.4, 0.4] and max(most) <= 1
    assert all(picture[7:9] == b"\xff\xd8" for picture in sent[1:])


def test_a_page_that_asks_again_and_again_keeps_one_replay_alone(tmp_path):
    replays, later = Replays("so101", POLICIES, ""), []
    write(tmp_path / replays._folder / "bag")
    session = Session(SimpleNamespace(), "greedy")  # takes nothing

    async def scenario() -> None:
        for _ in range(3):
            await replays.show(session, {"folder": str(tmp_path / "bag")}, lambda task: later.append(
                asyncio.ensure_future(task)))
        await asyncio.wait_for(asyncio.gather(*later[:2]), 30)
        assert not later[2].done() and len(session._waiting["picture"]) == 1
        session.gone = True
        await asyncio.wait_for(later[2], 30)

    asyncio.run(scenario())


def test_the_command_is_one_that_vla_ros_takes(tmp_path):
    words = Replays("so101", POLICIES, "left")._command(tmp_path / "bag", tmp_path / "out")
    parser = Parser()
    replay.arguments(parser)
    args = parser.parse_args(words[words.index("replay") + 1 :])
    assert (args.policy, args.namespace, args.overlay, args.output) == (POLICIES, "left", True, str(tmp_path / "out"))


def test_what_cannot_be_replayed_is_said_in_one_line(tmp_path, monkeypatch):
    session, bag = SimpleNamespace(), {"folder": str(tmp_path / "none")}

    def ask(replays: Replays) -> str:
        with pytest.raises(InputError) as error:
            asyncio.run(replays.show(session, bag, lambda task: None))
        return str(error.value)

    assert "expected the console to be started with --policy" in ask(Replays("so101", [], ""))
    replays = Replays("so101", ["one"], "")
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho 'a line' >&2\necho 'vla-ros replay: one: no such checkpoint' >&2\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(program))
    assert ask(replays) == "replay: vla-ros replay: one: no such checkpoint" and not replays.busy
    replays.busy = "another"
    assert "another is being computed" in ask(replays)


def test_those_of_other_policies_are_kept_apart():
    folders = {Replays("so101", policies, "")._folder for policies in (["a"], ["a", "b"], ["b", "a"])}
    assert len(folders) == 3
