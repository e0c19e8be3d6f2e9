"""The console's server alone: who is let in, who is armed, and what hostile clients get."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("websockets", reason="websockets (requirements/console.txt) is not installed")
pytest.importorskip("rclpy", reason="the package of the nodes needs ROS 2")

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from vla_ros.core.errors import InputError
from vla_ros.nodes.console import server as module
from vla_ros.nodes.console.server import FILES, MOST_A_SECOND, PAGE, Listen, Server, Session

HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "\u202eevil\x1b[31m", "\ud800")


class Desk:
    """A server on a free port, and what it was asked for."""

    def __init__(self, token: str = "") -> None:
        self.pressed: list[str] = []
        self.done: list[dict[str, Any]] = []
        self.server = Server(Listen(port=0, token=token), lambda session: json.dumps({"you": session.name}),
                             lambda session: self.pressed.append(session.name), self._do)

    async def _do(self, session: Session, wish: dict[str, Any]) -> str:
        if wish.get("text") == "refused":
            raise InputError(f"{wish['text']}: expected something else")
        self.done.append(wish)
        return f"done: {wish.get('text')}"

    def open(self, token: str = "", **changes: Any) -> connect:
        host = f"127.0.0.1:{self.server.port}"
        given = {"origin": f"http://{host}", "uri": f"ws://{host}/ws?token={token}"} | changes
        return connect(given["uri"], origin=given["origin"], additional_headers=given.get("headers"), proxy=None)


def served(scenario: Callable[[Desk], Awaitable[None]], token: str = "") -> None:
    async def run() -> None:
        desk, stop = Desk(token), asyncio.Event()
        ready: asyncio.Future = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(desk.server.run(ready.set_result, stop))
        await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
        try:
            await asyncio.wait_for(scenario(desk), 30)
        finally:
            stop.set()
            await running

    asyncio.run(run())


async def item(socket: ClientConnection, kind: str) -> Any:
    """The first item of the next message of a kind."""
    while True:
        message = json.loads(await socket.recv())
        if message["kind"] == kind:
            return message["items"][0]


async def ask(socket: ClientConnection, **wish: Any) -> dict[str, Any]:
    await socket.send(json.dumps(wish))
    return await item(socket, "answer")


async def get(desk: Desk, path: str, host: str | None = None) -> tuple[int, str]:
    """Status and answer, head and body, of a plain request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host or f'localhost:{desk.server.port}'}\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer


async def until(predicate: Callable[[], bool]) -> None:
    while not predicate():
        await asyncio.sleep(0.005)


def test_the_page_comes_by_its_own_name_alone():
    async def scenario(desk: Desk) -> None:
        port = desk.server.port
        for path, (name, _) in FILES.items():
            status, answer = await get(desk, path)
            assert status == 200 and answer.endswith((PAGE / name).read_text())
            policy = re.search("Content-Security-Policy: (.*)", answer)[1]
            assert "default-src 'none'; script-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert (await get(desk, "/../server.py"))[0] == (await get(desk, "//etc/passwd"))[0] == 404
        # DNS rebinding: the name of a foreign site leads to this machine. Or a host that would change the policy above.
        for host in (f"evil.example:{port}", "localhost", f"localhost:{port + 1}", f"x;y@localhost:{port}",
                     f"192.168.0.7:{port}", f"localhost.evil.example:{port}", f"localhost:{port}:{port}", "", "[::1"):
            assert (await get(desk, "/", host or " "))[0] == 421, host

    served(scenario)


def test_a_foreign_page_and_a_wrong_token_are_turned_away():
    async def refused(desk: Desk, **changes: Any) -> int:
        with pytest.raises(InvalidStatus) as error:
            async with desk.open(**changes):
                pass
        return error.value.response.status_code

    async def scenario(desk: Desk) -> None:
        good = {"token": "s3cret"}
        for origin in (None, "http://evil.example", "null", f"https://127.0.0.1:{desk.server.port}",
                       f"http://127.0.0.1:{desk.server.port}.evil.example"):
            assert await refused(desk, **good, origin=origin) == 403
        for token in ("", "S3cret", "s3cret0", "é", "s3cret%00"):
            assert await refused(desk, token=token) == 401, token
        async with desk.open(**good) as socket:
            assert (await item(socket, "hello"))["you"].startswith("127.0.0.1 #")
        # Asked for by its number in the network; a name that was not given is nobody's.
        assert (await get(desk, "/", f"192.168.0.7:{desk.server.port}"))[0] == 200
        assert (await get(desk, "/", f"evil.example:{desk.server.port}"))[0] == 421

    async def without(desk: Desk) -> None:
        async with desk.open("earlier") as socket:  # of a console that had one; a browser may keep it
            await item(socket, "hello")

    served(scenario, token="s3cret")
    served(without)


def test_what_was_asked_for_is_done_though_the_page_leaves():
    async def scenario(desk: Desk) -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def slow(session: Session, wish: dict[str, Any]) -> str:
            asked.set()
            await go_on.wait()
            desk.done.append(wish)
            return "done"

        desk.server._do = slow
        async with desk.open() as socket:
            await socket.send('{"do": "arm"}')
            await socket.send('{"do": "record"}')
            await asked.wait()
        await until(lambda: not desk.server.sessions)
        go_on.set()
        await until(lambda: desk.done == [{"do": "record"}])

    served(scenario)


def test_it_is_read_only_until_armed_but_for_the_e_stop():
    async def scenario(desk: Desk) -> None:
        server = desk.server
        async with desk.open() as one, desk.open() as two:
            first, second = (await item(one, "hello"))["you"], (await item(two, "hello"))["you"]
            for what in ("start", "stop", "pause", "reset", "change", "record", "outcome", "take_over"):
                assert "not armed" in (await ask(one, do=what, text="go"))["text"]
            await two.send('{"do": "e_stop"}')
            await until(lambda: desk.pressed == [second])
            await one.send('{"do": "arm"}')
            assert await ask(one, do="start", text="go") == {"good": True, "text": "done: go"}
            assert await ask(one, do="start", text="refused") == {
                "good": False, "text": "refused: expected something else"}
            assert (await ask(two, do="arm"))["text"].startswith(f"{first} is armed")
            assert "not armed" in (await ask(two, do="start", text="no"))["text"]
            await two.send('{"do": "arm", "take": true}')
            assert (await ask(two, do="start", text="mine"))["good"]
            assert "not armed" in (await ask(one, do="stop"))["text"]
            assert server.armed.name == second
            await two.close()
            await until(lambda: server.armed is None)  # lost with the connection
            await one.send('{"do": "arm"}')
            await until(lambda: server.armed is not None)
            await one.send('{"do": "disarm"}')
            await until(lambda: server.armed is None)
        assert [wish["text"] for wish in desk.done] == ["go", "mine"]

    served(scenario)


def test_garbage_is_answered_and_the_e_stop_still_works():
    async def scenario(desk: Desk) -> None:
        async with desk.open() as socket:
            await socket.send('{"do": "arm"}')
            for garbage in ("", "{", "[]", "null", "1e999", '"e_stop"', '{"do": 1}', '{"do": ["e_stop"]}', "[" * 20_000,
                            b"\x00\xff" * 100, '{"do": null}', *map(json.dumps, HOSTILE)):
                await socket.send(garbage)
                assert not (await item(socket, "answer"))["good"], garbage
            for text in HOSTILE:  # nothing is dropped and nothing becomes markup: JSON carries it
                assert (await ask(socket, do="start", text=text))["good"]
            await socket.send('{"do": "e_stop"}')
            await until(lambda: len(desk.pressed) == 1)
            assert [wish["text"] for wish in desk.done] == list(HOSTILE)
        async with desk.open() as huge:
            with pytest.raises(ConnectionClosed):
                await huge.send("x" * 100_000)
                while True:
                    await huge.recv()
            assert huge.close_code == 1009

    served(scenario)


def test_a_flood_ends_its_connection_alone():
    async def scenario(desk: Desk) -> None:
        async with desk.open() as calm, desk.open() as flood:
            with pytest.raises(ConnectionClosed):
                for _ in range(5000):
                    await flood.send('{"do": "e_stop"}')
                while True:
                    await flood.recv()
            assert flood.close_code == 1008 and len(desk.pressed) >= MOST_A_SECOND
            await item(calm, "hello")
            await until(lambda: len(desk.server.sessions) == 1)
            desk.server.tell("sample", "1")
            assert await item(calm, "sample") == 1
        async with desk.open():
            pages = [await desk.open().__aenter__() for _ in range(module.MOST_CLIENTS - 1)]
            async with desk.open() as late:
                with pytest.raises(ConnectionClosed):
                    await late.recv()
                assert late.close_code == 1013
            for page in pages:
                await page.close()

    served(scenario)


def test_what_waits_for_a_stalled_page_is_bounded_and_it_is_left(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    aborted: list[bool] = []

    async def never(message: Any) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        transport = SimpleNamespace(abort=lambda: aborted.append(True))
        session = Session(SimpleNamespace(send=never, transport=transport), "stalled")
        session.put("image front", b"first")
        assert not session.takes("image front") and session.takes("image wrist")
        for number in range(10_000):
            session.put("sample", str(number), keep=250)
            session.put("state", str(number))
        assert list(session._waiting["sample"])[0] == "9750" and len(session._waiting["sample"]) == 250
        assert list(session._waiting["state"]) == ["9999"]
        await session.write()  # ends by itself

    asyncio.run(scenario())
    assert aborted == [True]


def test_texts_of_others_never_become_markup():
    for name, kind in FILES.values():
        text = (PAGE / name).read_text()
        if "javascript" in kind:
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
        else:  # the policy forbids what is inline
            assert not re.search(r"<script>|\son\w+=|style=|https?://", text)
