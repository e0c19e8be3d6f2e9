"""Servers for the tests of remote policies: ours in a thread, and scripted ones that stand for faults."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

for _module in ("websockets", "msgpack"):
    pytest.importorskip(_module, reason=f"{_module} (requirements/remote.txt) is not installed")

from websockets.sync.server import ServerConnection, serve

from vla_ros.core.robot import RobotSpec
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.server_file import ServerFile
from vla_ros.runtime.remote.server import PolicyServer, ServerOptions
from vla_ros.runtime.remote.session import RemoteSession
from vla_ros.runtime.remote.wire import pack
from vla_ros.runtime.session import Inference

LONG = 60.0  # s, never how long something takes
ROBOT = RobotSpec.load(Path(__file__).parent.parent / "config/robots/so101.yaml")


def client(port: int, **changes) -> RemoteSession:
    return RemoteSession(ServerFile(f"ws://127.0.0.1:{port}", **{"deadline": LONG} | changes), ROBOT)


def same(one: Inference, other: Inference) -> None:
    """The same targets, to the last bit."""
    assert [part.names for part in one.targets.parts] == [part.names for part in other.targets.parts]
    for part, expected in zip(one.targets.parts, other.targets.parts, strict=True):
        np.testing.assert_array_equal(part.data, expected.data)
        assert (part.space, part.group, part.frame) == (expected.space, expected.group, expected.frame)


@contextmanager
def serving(loaded, port: int = 0, robot: RobotSpec = ROBOT, keys=None, session=None, **options) -> Iterator[int]:
    """Our server in a thread; its port. At the end all connections are closed."""
    server = PolicyServer(loaded, robot, session, keys, ServerOptions(port=port, **options))
    started, found, failed = threading.Event(), [], []

    async def run() -> None:
        stop = asyncio.Event()
        found.append((asyncio.get_running_loop(), stop))

        def ready(port: int) -> None:
            found.append(port)
            started.set()

        await server.run(ready, stop)

    def body() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)
            started.set()

    thread = threading.Thread(target=body)
    thread.start()
    started.wait()
    if failed:
        raise failed[0]
    try:
        yield found[1]
    finally:
        loop, stop = found[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        assert not failed, failed


@contextmanager
def scripted(handle: Callable[[ServerConnection], None], port: int = 0, **options) -> Iterator[int]:
    """A server whose every connection is `handle`, in a thread of its own; its port."""
    server = serve(handle, "127.0.0.1", port, compression=None, max_size=None, **options)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        thread.join()


def once(answer):
    """A server whose answer to each question is `answer`, bytes or text."""

    def handle(connection):
        connection.send(pack({}))
        for _ in connection:
            connection.send(answer)

    return handle


def described_by_file(port: int, **changes) -> ServerFile:
    embodiment = Embodiment.identity(
        ROBOT.joint_names, {"observation/image": "front", "observation/wrist_image": "wrist"}, 0.1)
    return ServerFile(f"ws://127.0.0.1:{port}", embodiment=embodiment, **{"deadline": LONG} | changes)
