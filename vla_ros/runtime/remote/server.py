"""The server's end of the websocket: serves a policy to openpi's clients and ours."""

import asyncio
import hmac
import http
import logging
import ssl
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State

from vla_ros.core.chunk import Targets
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import JOINT_STATES
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.policies.server_file import Keys
from vla_ros.runtime.history import example_sample
from vla_ros.runtime.remote.client import Client
from vla_ros.runtime.remote.described import OWN, Columns, Described
from vla_ros.runtime.remote.digest import digest
from vla_ros.runtime.remote.processor import default_keys
from vla_ros.runtime.remote.wire import pack
from vla_ros.runtime.session import PolicySession, SessionOptions

_LEAST_REQUEST = 16 << 20  # bytes of a request that are always accepted
_SILENT = logging.getLogger("vla_ros.websockets")  # garbage that a client sends is not logged


@dataclass(frozen=True)
class ServerOptions:
    """Options of the server.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        token: what clients must send as `Authorization: Api-Key TOKEN` (or Bearer); empty: nothing.
        tls: of the certificate, None for plain `ws://`.
        clients: that may be connected at a time.
        say: gets a line for connections and errors.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    tls: ssl.SSLContext | None = None
    clients: int = 4
    say: Callable[[str], object] = lambda text: None


class PolicyServer:
    """Serves one policy on one robot's cameras and joints.

    Requests are answered one after the other, in a separate thread. A policy with memory has a session for each client,
    all of them warmed up before the server starts, and reset for the next client; other policies share one. An invalid
    request is answered with a line of text; nothing that a client sends ends the server.

    Args:
        loaded: on its device, checked against the robot.
        robot: whose joints the state and the actions are, rad or m.
        keys: names of the entries; None: "observation/CAMERA", "observation/state", "prompt", "actions".

    Raises InputError for keys that do not fit, and for inputs that no message can contain.
    """

    def __init__(
        self, loaded: LoadedPolicy, robot: RobotSpec, session: SessionOptions | None = None, keys: Keys | None = None,
        options: ServerOptions | None = None,
    ) -> None:
        self.robot, self.options = robot, options or ServerOptions()
        self._loaded, self._session_options = loaded, session or SessionOptions()
        processor = loaded.processor
        self._keys = _checked(keys, processor.cameras, robot.joint_names)
        for name in processor.streams:
            if any(dtype == "string" for _, dtype in robot.stream(name).readings.values()):
                raise InputError(f"stream {name!r} holds texts, expected numbers: a policy that reads it cannot be "
                                 "served")
        self._session = self._open_session()
        self._remembers = self._session.remembers
        example = example_sample(robot, processor)
        (first,) = self._session.infer([example])
        if self._remembers:  # no client waits for a warm-up
            self._free = [self._session, *(self._open_session() for _ in range(self.options.clients - 1))]
        else:
            self._session.begin()
            self._session.seed()
        self.described = self._describe(first.targets)
        self._metadata = pack({OWN: asdict(self.described)})
        images = sum(image.nbytes for image in example.images.values())
        values = sum(value.nbytes for value in example.values.values())
        self._most = max(_LEAST_REQUEST, 2 * (images + values) + (1 << 20))
        self._clients = 0
        self._told: deque[float] = deque()
        self._thread = ThreadPoolExecutor(1, "inference")

    def _open_session(self) -> PolicySession:
        session = PolicySession(self._loaded, self._session_options)
        session.warm_up(example_sample(self.robot, session.processor))
        return session

    def _describe(self, targets: Targets) -> Described:
        processor = self._loaded.processor
        steps = processor.steps()
        streams = {name: f"observation/{name}" for name in steps if name not in {*processor.cameras, JOINT_STATES}}
        parts = tuple(Columns(part.names, part.space.name, part.group, part.frame) for part in targets.parts)
        return Described(
            self._loaded.family, self.robot.joint_names, self._keys, streams, steps, processor.step_dt,
            targets.horizon, parts, self._session.traits.paced, digest(self._loaded),
        )  # fmt: skip

    async def run(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set; `ready` is called with the port when clients may come.

        Raises InputError if it cannot listen.
        """
        options = self.options
        try:
            server = await serve(
                self._handle, options.host, options.port, ssl=options.tls, process_request=self._admit, origins=[None],
                compression=None, max_size=self._most, max_queue=1, logger=_SILENT, server_header=None, close_timeout=1,
                open_timeout=5,
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"{options.host}:{options.port}: {error.strerror or error}; expected an address of this "
                             "machine and a free port") from None
        async with server:
            ready(next(iter(server.sockets)).getsockname()[1])
            await stop.wait()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse a connection before it is accepted."""
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        given = [value.partition(" ") for value in request.headers.get_all("Authorization")]
        tokens = [token.strip() for scheme, _, token in given if scheme.lower() in ("api-key", "bearer")]
        wanted = self.options.token.encode()
        if wanted and not any(hmac.compare_digest(token.encode(errors="replace"), wanted) for token in tokens):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "a token is needed: Authorization: Api-Key TOKEN\n")
        return None

    async def _handle(self, socket: ServerConnection) -> None:
        if self._clients >= self.options.clients:
            await socket.close(CloseCode.TRY_AGAIN_LATER, f"{self._clients} clients, which is the limit")
            return
        self._clients += 1
        who = f"client {socket.remote_address[0]}:{socket.remote_address[1]}"
        self._tell(f"{who} connected")
        try:
            await socket.send(self._metadata)
            with self._client() as client:
                async for frame in socket:
                    began = time.monotonic()
                    try:
                        answer = await self._in_thread(_answer, socket, client, frame, began)
                    except InputError as error:
                        answer = str(error)
                        self._tell(f"{who}: refused: {answer}")
                    if answer is None:
                        break
                    await socket.send(answer)
                    client.whole_time = time.monotonic() - began
        except ConnectionClosed:
            pass
        except Exception as error:  # a bug: the other clients are still served
            self._tell(f"{who}: {traceback.format_exc()}")
            with suppress(ConnectionClosed):
                await socket.send(f"internal error: {type(error).__name__}: {error}")
                await socket.close(CloseCode.INTERNAL_ERROR)
        finally:
            self._clients -= 1
            self._tell(f"{who} left")

    @contextmanager
    def _client(self) -> Iterator[Client]:
        if not self._remembers:
            yield Client(self._session, self.robot, self.described, shared=True)
            return
        session = self._free.pop()  # there are as many as clients
        session.begin()
        session.seed()
        try:
            yield Client(session, self.robot, self.described, shared=False)
        finally:
            self._free.append(session)  # the next one to come meets what this one met

    def _tell(self, text: str) -> None:
        """At most ten lines a second, so that clients cannot fill the disk."""
        now = time.monotonic()
        while self._told and now - self._told[0] > 1.0:
            self._told.popleft()
        if len(self._told) < 10:
            self._told.append(now)
            with suppress(OSError):  # a closed terminal or pipe must not end the clients
                self.options.say(text)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


def _answer(socket: ServerConnection, client: Client, frame: bytes | str, began: float) -> bytes | None:
    """None if the client left while others were answered, so that those who wait do not wait for it too."""
    return client.answer(frame, began) if socket.state is State.OPEN else None


def _checked(keys: Keys | None, cameras: tuple[str, ...], joints: tuple[str, ...]) -> Keys:
    """Raises InputError unless they hold the cameras that the policy looks at and all joints."""
    usual = default_keys(cameras, joints)
    if keys is None:
        return usual
    named = keys.cameras or usual.cameras
    if sorted(named.values()) != sorted(cameras):
        raise InputError(f"keys: cameras {sorted(named.values())}, expected each once that the policy looks at: "
                         f"{sorted(cameras)}")
    state = keys.state or usual.state
    if sum(state.values()) != len(joints):
        raise InputError(f"keys: state of {sum(state.values())} numbers, the robot has {len(joints)} joints: {joints}")
    return Keys(named, state, keys.prompt, keys.actions, keys.channels_first)
