"""The console's web server: one page, its clients, and which of them is armed. Contains no ROS.

A browser sends JSON texts: {"do": "e_stop"}, {"do": "arm"}, ... It receives texts {"kind": ..., "items": [...]} and, as
binary messages, images.
"""

import asyncio
import hmac
import http
import ipaddress
import json
import logging
import re
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import CloseCode

import vla_ros
from vla_ros.core.errors import InputError, shown
from vla_ros.core.text import plain

MOST_CLIENTS = 16
MOST_A_SECOND = 40  # messages of one client; what they ask for is done, then the connection ends
LONGEST = 32_768  # bytes of one: an instruction has at most 10 kB
PATIENCE = 20.0  # s without progress after which a client's connection ends
_AT_A_TIME = 4  # unfinished requests of one client
PAGE = Path(vla_ros.__file__).parent / "data" / "console"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/console.css": ("console.css", "text/css; charset=utf-8"),
    "/console.js": ("console.js", "text/javascript; charset=utf-8"),
    "/plot.js": ("plot.js", "text/javascript; charset=utf-8"),
    "/replay.js": ("replay.js", "text/javascript; charset=utf-8"),
}
_SILENT = logging.getLogger("vla_ros.console")  # garbage from strangers is not logged
_SILENT.propagate = False
_SILENT.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Listen:
    """Where the page is served.

    Attributes:
        host: 127.0.0.1 for this machine alone; else an address of this machine, or 0.0.0.0.
        port: 0 takes a free one.
        token: that a client must send; "": none.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""


class Session:
    """One open page. Its queue is bounded: of each kind the newest `keep` items."""

    def __init__(self, connection: ServerConnection, name: str) -> None:
        self.connection, self.name = connection, name
        self.gone = False  # its connection has ended
        self.hidden = False  # the page is in the background: no images, no samples
        self.view = 0  # of the cameras: 0 as they are, 1 as the policy sees them
        self.doing: set[asyncio.Task] = set()
        self._waiting: dict[str, deque[str | bytes]] = {}
        self._news = asyncio.Event()

    def put(self, kind: str, item: str | bytes, keep: int = 1) -> None:
        """`item`: JSON, or the bytes of a binary message."""
        self._waiting.setdefault(kind, deque(maxlen=keep)).append(item)
        self._news.set()

    def takes(self, kind: str) -> bool:
        """Whether it is visible, and everything of this kind has been sent."""
        return not self.hidden and kind not in self._waiting

    async def write(self) -> None:
        """Send the queue, for ever; end the connection of a client that does not keep up."""
        with suppress(ConnectionClosed):
            while True:
                await self._news.wait()
                self._news.clear()
                for kind in list(self._waiting):
                    for message in _messages(kind, self._waiting.pop(kind)):
                        try:
                            await asyncio.wait_for(self.connection.send(message), PATIENCE)
                        except TimeoutError:
                            self.connection.transport.abort()
                            return


def _messages(kind: str, items: deque[str | bytes]) -> Iterator[str | bytes]:
    if isinstance(items[0], bytes):
        yield from items
    else:
        yield f'{{"kind":"{kind}","items":[{",".join(items)}]}}'


class Server:
    """Serves the page and its websocket.

    Args:
        listen: where.
        greet: session -> JSON that a page needs first, sent as the kind "hello".
        press: called at once for an e-stop from any session.
        do: called for all other requests of an armed session; returns the answer. Raises InputError to refuse.
        say: gets a line when a page opens, closes or arms.
    """

    def __init__(
        self, listen: Listen, greet: Callable[[Session], str], press: Callable[[Session], object],
        do: Callable[[Session, dict[str, Any]], Awaitable[str]], say: Callable[[str], object] = lambda text: None,
    ) -> None:  # fmt: skip
        self.listen, self.sessions = listen, []
        self.armed: Session | None = None
        self._greet, self._press, self._do, self._say = greet, press, do, say
        self._files = {path: (kind, (PAGE / name).read_bytes()) for path, (name, kind) in FILES.items()}
        self._count = 0
        self._under_way: set[asyncio.Task] = set()

    async def run(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set; `ready` is called with the port. Raises InputError if it cannot listen."""
        try:
            server = await serve(
                self._handle, self.listen.host, self.listen.port, process_request=self._admit, compression=None,
                max_size=LONGEST, max_queue=8, logger=_SILENT, server_header=None, close_timeout=1, open_timeout=5,
                ping_interval=5, ping_timeout=PATIENCE,
            )  # fmt: skip
        except (OSError, OverflowError) as error:
            raise InputError(f"{self.listen.host}:{self.listen.port}: {getattr(error, 'strerror', None) or error}; "
                             "expected an address of this machine and a free port") from None
        async with server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            ready(self.port)
            await stop.wait()
        for task in self._under_way:
            task.cancel()

    def tell(self, kind: str, item: str | bytes, keep: int = 1) -> None:
        """Send to every visible page; states go to the hidden ones too."""
        for session in self.sessions:
            if not session.hidden or kind == "state":
                session.put(kind, item, keep)

    def seeing(self, kind: str, view: int) -> list[Session]:
        """The pages that would show a new image of this camera (`kind`) in this view now."""
        return [session for session in self.sessions if session.view == view and session.takes(kind)]

    # Before a connection becomes one

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        host = request.headers.get_all("Host")
        if len(host) != 1 or not self._is_ours(host[0]):
            return _refused(http.HTTPStatus.MISDIRECTED_REQUEST,
                            "this page has another address, and this name may be an attack (DNS rebinding)")
        try:
            url = urlsplit(request.path)
        except ValueError:
            return _refused(http.HTTPStatus.BAD_REQUEST, "no path")
        if url.path in self._files:
            return _answer(*self._files[url.path], host[0])
        if url.path != "/ws":
            return _refused(http.HTTPStatus.NOT_FOUND, "no such page")
        if request.headers.get_all("Origin") != [f"http://{host[0]}"]:  # browsers always send it
            return _refused(http.HTTPStatus.FORBIDDEN, "requested by a page of another site")
        given = parse_qs(url.query).get("token", [""])[0]
        if self.listen.token and not hmac.compare_digest(given.encode(errors="replace"), self.listen.token.encode()):
            return _refused(http.HTTPStatus.UNAUTHORIZED, "this address needs its token: see the console's log")
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header can belong to this server. Names of other sites (DNS rebinding) are refused; a numeric
        address cannot be one."""
        match = re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?", host, re.ASCII)
        if match is None or int(match[2] or 80) != self.port:
            return False
        name = match[1].strip("[]").lower()
        if name in ("localhost", "127.0.0.1", "::1"):
            return True
        if not self.listen.token:  # this machine alone
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            here = socket.gethostname().lower()
            return name in (self.listen.host.lower(), here, f"{here}.local")
        return True

    # A connection

    async def _handle(self, connection: ServerConnection) -> None:
        if len(self.sessions) >= MOST_CLIENTS:
            await connection.close(CloseCode.TRY_AGAIN_LATER, f"{MOST_CLIENTS} pages are open, which is the limit")
            return
        self._count += 1
        session = Session(connection, f"{connection.remote_address[0]} #{self._count}")
        self.sessions.append(session)
        self._say(f"{session.name} opened the page")
        session.put("hello", self._greet(session))
        writer = asyncio.create_task(session.write())
        try:
            await self._read(session)
        except (ConnectionClosed, InvalidHandshake):
            pass
        finally:
            writer.cancel()
            self.sessions.remove(session)
            session.gone = True
            if self.armed is session:
                self.armed = None
            self._say(f"{session.name} left")

    async def _read(self, session: Session) -> None:
        times: deque[float] = deque(maxlen=MOST_A_SECOND)
        async for text in session.connection:
            try:
                wish = json.loads(text) if isinstance(text, str) else None
            except (ValueError, RecursionError):
                wish = None
            what = wish.get("do") if isinstance(wish, dict) else None
            if what == "e_stop":
                self._press(session)
            elif not isinstance(what, str):
                _reply(session, f"{shown(text)}: expected an object with `do`", False)
            elif not self._of_sessions(session, what, wish):
                if session is not self.armed:
                    _reply(session, f"{plain(what, 40)}: this page is not armed, it only watches", False)
                elif len(session.doing) >= _AT_A_TIME:
                    _reply(session, f"{plain(what, 40)}: {_AT_A_TIME} requests are unfinished, wait for them", False)
                else:
                    task = asyncio.create_task(self._carry_out(session, wish))
                    for under_way in (session.doing, self._under_way):  # to its end, even if the page closes
                        under_way.add(task)
                        task.add_done_callback(under_way.discard)
            now = time.monotonic()
            times.append(now)
            if len(times) == MOST_A_SECOND and now - times[0] < 1.0:
                await session.connection.close(CloseCode.POLICY_VIOLATION, "too many messages a second")
                return

    def _of_sessions(self, session: Session, what: str, wish: dict[str, Any]) -> bool:
        """Handle a request about the sessions themselves; False if it is not one."""
        if what == "arm":
            other = self.armed
            if other not in (None, session) and wish.get("take") is not True:
                _reply(session, f"{other.name} is armed: take over, or ask there to disarm", False)
            elif other is not session:
                self.armed = session
                self._say(f"{session.name} is armed" + (f", {other.name} no longer" if other else ""))
        elif what == "disarm":
            if self.armed is session:
                self.armed = None
                self._say(f"{session.name} is no longer armed")
        elif what == "look":
            session.hidden = wish.get("hidden") is True
            session.view = 1 if wish.get("view") == 1 else 0
        else:
            return False
        return True

    async def _carry_out(self, session: Session, wish: dict[str, Any]) -> None:
        try:
            _reply(session, await self._do(session, wish), True)
        except InputError as error:
            _reply(session, str(error), False)


def _reply(session: Session, text: str, good: bool) -> None:
    session.put("answer", json.dumps({"good": good, "text": plain(text, 1000)}), keep=20)


def _refused(status: http.HTTPStatus, words: str) -> Response:
    return _answer("text/plain; charset=utf-8", f"{words}\n".encode(), "", status)


def _answer(kind: str, body: bytes, host: str, status: http.HTTPStatus = http.HTTPStatus.OK) -> Response:
    """`host` was checked: it contains only a name and a port."""
    policy = (f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
              f"connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    headers = Headers({
        "Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store", "Connection": "close",
        "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    })
    return Response(status, status.phrase, headers, body)
