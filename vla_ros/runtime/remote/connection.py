"""The client's end of the websocket: each request is answered or given up within its deadline."""

import asyncio
import logging
import math
import os
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Close
from websockets.protocol import State

from vla_ros.core.errors import InputError, NotYet
from vla_ros.policies.server_file import ServerFile
from vla_ros.runtime.remote.wire import MOST_ANSWER, unpack

_BUSY = (429, 502, 503, 504)  # HTTP statuses of a gateway whose server may still start
_SHORTEST, _LONGEST = 0.1, 2.0  # s between two attempts to connect

# Errors are raised; websockets would also log them.
_SILENT = logging.getLogger("vla_ros.websockets")
_SILENT.setLevel(logging.CRITICAL)


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception:
        """Refuse redirections: images of the robot go only to the server that the user named."""
        return exc


class Connection:
    """One connection to a server, made when it is needed and again when it was lost.

    It has its own thread, so that neither connecting nor a peer that does not read can block the caller longer than the
    deadline. The protocol does not number requests: after a deadline the connection is closed, and whatever may still
    arrive on it is discarded; an unexpected frame ends it too.

    Args:
        file: where the server is.
        greet: called with the metadata of each new connection, in that thread; raises InputError to refuse it.

    Raises InputError for a token or certificate that cannot be used.
    """

    def __init__(self, file: ServerFile, greet: Callable[[Any], None]) -> None:
        self.url, self._greet = file.server, greet
        token = file.token
        self._headers = {"Authorization": f"Api-Key {token}"} if token else None
        self._tls = _tls(file) if file.server.startswith("wss://") else None
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task | None = None
        self._answer: asyncio.Future | None = None  # what the question under way waits for
        self._not_before, self._pause, self._reason = -math.inf, _SHORTEST, ""
        self.number = 0  # of the connection
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="policy server", daemon=True)
        self._thread.start()

    def ask(self, question: Callable[[], bytes] | None, seconds: float) -> bytes | str:
        """The answer to a request; None: only connect.

        Args:
            question: makes the message, once the connection is there.
            seconds: for all of it, a new connection included.

        Raises:
            NotYet: no server, no answer in time, or the connection was lost; the next request uses a new one.
            InputError: the server refuses us, or `greet` refused it.
        """
        if self._loop.is_closed():
            raise InputError(f"server {self.url}: the session was closed")
        return asyncio.run_coroutine_threadsafe(self._ask(question, seconds), self._loop).result()

    def give_up(self) -> None:
        """Use a new connection for the next request, and discard what is still under way."""
        self._loop.call_soon_threadsafe(self._drop)

    def close(self) -> None:
        """End the thread; no request may follow."""

        async def end() -> None:
            reader = self._reader
            self._drop()
            if reader is not None:
                await asyncio.wait([reader])
            self._loop.stop()

        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(end(), self._loop)
            self._thread.join()
            self._loop.close()

    async def _ask(self, question: Callable[[], bytes] | None, seconds: float) -> bytes | str:
        doing = "connection"
        try:
            async with asyncio.timeout(seconds):
                if self._socket is None or self._socket.state is not State.OPEN:
                    await self._connect()
                if question is None:
                    return b""
                doing = "answer"
                self._answer = self._loop.create_future()
                await self._socket.send(question())
                return await self._answer
        except TimeoutError:
            protocol = self._socket and self._socket.protocol  # it may be busy discarding what it has refused
            why = protocol and _refused(protocol.close_sent, protocol.close_rcvd_then_sent)
            self._lost(why or f"no {doing} within {seconds:g} s", pause=doing == "connection")
        except ConnectionClosed as error:
            self._lost(_closed(error), pause=False)
        finally:
            if self._answer is not None and self._answer.done() and not self._answer.cancelled():
                self._answer.exception()  # it was seen
            self._answer = None

    async def _connect(self) -> None:
        self._drop()
        if time.monotonic() < self._not_before:
            raise NotYet(f"server {self.url}: {self._reason}; tried again every {_LONGEST:g} s")
        try:
            socket = await _Connect(
                self.url, ssl=self._tls, additional_headers=self._headers, compression=None, proxy=None, logger=_SILENT,
                open_timeout=None, ping_interval=None, close_timeout=1.0, max_size=MOST_ANSWER, max_queue=4,
            )  # fmt: skip
            self._socket = socket
            self._greet(unpack(await socket.recv(decode=False), f"server {self.url}: metadata"))
        except InvalidStatus as error:
            code = error.response.status_code
            if code in _BUSY:
                self._lost(f"HTTP status {code}: a gateway whose policy server is not running")
            why = ("expected its token in token_file of a policy file" if code == 401 else
                   "expected a policy server of openpi's protocol")
            raise self._refused(f"HTTP status {code}, {why}") from None
        except ssl.SSLError as error:
            raise self._refused(f"TLS: {_tls_said(error)}; expected a certificate that the system, or `certificate` "
                                "of the policy file, trusts") from None
        except (InvalidURI, InvalidHandshake, UnicodeError) as error:
            raise self._refused(f"{error}; expected a policy server at ws://HOST:PORT") from None
        except ConnectionClosed as error:
            self._lost(_closed(error))
        except (OSError, EOFError) as error:
            if isinstance(error, TimeoutError):
                raise
            self._lost(_system(error))
        except InputError as error:
            self._wait(str(error).removeprefix(f"server {self.url}: "))
            raise
        self.number += 1
        self._pause = _SHORTEST
        self._reader = self._loop.create_task(self._read(socket))

    async def _read(self, socket: ClientConnection) -> None:
        why = ""
        try:
            while True:
                frame = await socket.recv()
                if self._answer is None or self._answer.done():
                    why = "it sent an unexpected frame"
                    break
                self._answer.set_result(frame)
        except ConnectionClosed as error:
            why = _closed(error)
        if self._socket is socket:
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(NotYet(f"server {self.url}: {why}"))
            self._drop()

    def _lost(self, why: str, pause: bool = True) -> None:
        """Raises NotYet; with `pause`, the next attempts to connect wait longer and longer."""
        self._wait(why) if pause else self._drop()
        raise NotYet(f"server {self.url}: {why}")

    def _refused(self, why: str) -> InputError:
        self._wait(why)
        return InputError(f"server {self.url}: {why}")

    def _wait(self, why: str) -> None:
        self._drop()
        self._reason = why
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST)

    def _drop(self) -> None:
        """Give the connection up at once, whatever is still on its way."""
        socket, self._socket = self._socket, None
        reader, self._reader = self._reader, None
        if reader is not None and reader is not asyncio.current_task(self._loop):
            reader.cancel()
        if socket is not None:
            socket.transport.abort()


def _tls(file: ServerFile) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file.certificate)
    except OSError as error:
        raise InputError(f"certificate {file.certificate}: {error.strerror or error}, expected a PEM file") from None


def _tls_said(error: ssl.SSLError) -> str:
    """What is wrong with a certificate, where that is it."""
    return getattr(error, "verify_message", None) or error.reason or str(error)


def _system(error: Exception) -> str:
    """In the system's words: asyncio puts its own, with the address, into an OSError."""
    number = getattr(error, "errno", None)
    if number and number > 0:
        return os.strerror(number)
    return getattr(error, "strerror", None) or str(error) or "the connection was closed"


def _closed(error: ConnectionClosed) -> str:
    """In words, with the reason that the server gave, or with what was wrong with its frame."""
    frame = error.rcvd
    said = f", code {frame.code}{f': {frame.reason}' if frame.reason else ''}" if frame else ""
    return _refused(error.sent, error.rcvd_then_sent) or f"the connection was closed{said}"


def _refused(sent: Close | None, rcvd_then_sent: bool | None) -> str:
    """In words, why the connection was closed from this side, as for a frame that is too large; "" if it was not."""
    return f"its frame was refused, code {sent.code}: {sent.reason}" if sent and not rcvd_then_sent else ""
