"""The operator's console: one page for a browser, served from the robot's machine.

    ros2 run vla_ros console_node --ros-args -p robot:=so101 -p autostart:=true

It only subscribes, and commands nothing by itself. Policy and executor do not depend on it.
"""

import asyncio
import json
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python

from vla_ros.core.errors import InputError
from vla_ros.core.files import read_token
from vla_ros.core.text import plain
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.base import ManagedNode, spin_node
from vla_ros.nodes.console import wishes
from vla_ros.nodes.console.cameras import RATE, policy_views
from vla_ros.nodes.console.episodes import Episodes
from vla_ros.nodes.console.hands import Hands
from vla_ros.nodes.console.replays import Replays
from vla_ros.nodes.console.scene import Scene
from vla_ros.nodes.console.server import Listen, Server, Session
from vla_ros.nodes.console.state import executor_state, latency, policy_state, robot_facts
from vla_ros.nodes.console.traces import BLENDED, Traces
from vla_ros.nodes.doctor import Check, live_checks, machine_checks, policy_checks
from vla_ros.nodes.parameters import NodeParameters, parameter

THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
PERIOD, ALONE = 0.04, 0.5  # s between looks at the graph while a page is open, and while none is
STATE_PERIOD, CHECK_PERIOD, MACHINE_PERIOD = 0.1, 2.0, 30.0  # s
UNHEARD = "e-stop: no executor has said that it stopped; use the robot's own emergency stop"
_SOURCE = "takeover_topic"  # of executor_node
OLD = 3.0  # s; a page that shows nothing newer starts nothing
_STARTS = ("start", "resume", "reset", "change", "take_over")  # what may make the robot move


@dataclass(frozen=True)
class ConsoleParameters(NodeParameters):
    port: int = parameter(8080, "port of the page; 0 takes a free one", low=0, high=65535)
    listen: str = parameter("127.0.0.1", "address to listen on: by default this machine only; any other address "
                                         "requires a token")
    token_file: str = parameter(
        "", "file whose first line is the token; empty: a new one at each start, in the log, or none for this "
            "machine only")
    policy: str = parameter("", "checkpoint or policy file, as of policy_node: for the checks and the policy's view")
    compare: str = parameter("", "a second checkpoint or policy file, whose chunks a replay shows beside the first's")
    recordings: str = parameter("recordings", "folder in which recordings of the page are put")


class ConsoleNode(ManagedNode):
    """Polls the graph and serves the page in one thread of its own; see the module and `ConsoleParameters`."""

    def __init__(self, **options: Any) -> None:
        self._thread: threading.Thread | None = None
        self._hands: Hands | None = None
        super().__init__("console_node", ConsoleParameters, **options)

    def configure(self) -> None:
        values = self.parameters
        self._robot = robot = self.load_robot()
        local = values.listen in THIS_MACHINE
        token = read_token(values.token_file) if values.token_file else "" if local else secrets.token_urlsafe(16)
        self._fixed: list[Check] = []
        views: dict[str, Any] = {}
        self._processor = None
        if values.policy:
            self._fixed, self._processor = policy_checks(values.policy, robot)
            views = policy_views(self._processor)
        self._scene = Scene(self, robot, views)
        self._traces = Traces(robot)
        self._hands = Hands(self)
        self._episodes = Episodes(self, self._hands, Path(values.recordings).expanduser().absolute())
        self._replays = Replays(values.robot, [path for path in (values.policy, values.compare) if path],
                                self.get_namespace().strip("/"))  # fmt: skip
        self._asked_parameters = self.create_client(GetParameters, "executor_node/get_parameters")
        self._views = bool(views)
        self._source: dict[str, Any] | None = None  # of a takeover: its topic, and whether anybody publishes it
        self._server = Server(
            Listen("127.0.0.1" if values.listen == "localhost" else values.listen, values.port, token),
            self._greeting, lambda session: self._press(session), self._do, self.get_logger().info,
        )  # fmt: skip

    def activate(self) -> None:
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        self._hands.loop = self._loop
        started, self._why = threading.Event(), None
        self._thread = threading.Thread(target=self._run, args=(started,), name="console", daemon=True)
        self._thread.start()
        started.wait()
        if self._why is not None:
            self._thread.join()
            raise self._why

    def deactivate(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._thread = None

    def release(self) -> None:
        if self._hands is not None:
            self._hands.destroy()
            self._hands = None

    # The thread of the page

    def _run(self, started: threading.Event) -> None:
        try:
            self._loop.run_until_complete(self._serve(started))
        except InputError as error:
            self._why = error
        except Exception:
            self.get_logger().error(f"the page has ended: {traceback.format_exc()}")
            self._why = InputError("the page did not start: the log says why")
        finally:
            started.set()
            self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        def ready(port: int) -> None:
            for words in self.addresses(port):
                self.get_logger().info(words)
            started.set()

        self._background: set[asyncio.Future] = set()
        watching = asyncio.create_task(self._watch())
        try:
            await self._server.run(ready, self._stop)
        finally:
            tasks = [watching, *self._background]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def addresses(self, port: int) -> list[str]:
        """The addresses of the page, a line each."""
        host, token = self.parameters.listen, self._server.listen.token
        if not token:
            return [f"console: http://localhost:{port}/ (this machine only)"]
        name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        crosses = "" if host in THIS_MACHINE else "; page and token are sent unencrypted"
        return [f"console: http://{name}:{port}/#{token}",
                f"everyone who has this address can command the robot{crosses}"]

    async def _watch(self) -> None:
        due = dict.fromkeys(("state", "checks", "machine", "images", "parameters"), 0.0)
        self._checks: list[Check] = []
        self._machine: list[Check] = []
        while True:
            try:
                self._look(due)
            except Exception:  # a bug: the page continues, and says so
                self.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)
            await asyncio.sleep(PERIOD if self._server.sessions or self._hands.pressing else ALONE)

    def _look(self, due: dict[str, float]) -> None:
        now_ns, now, scene, traces = self.now_ns(), time.monotonic(), self._scene, self._traces
        if self._hands.look(scene.executor is not None and scene.executor.state == ExecutorStatus.E_STOPPED):
            self.get_logger().error(UNHEARD)
            self._tell("answer", {"good": False, "text": UNHEARD}, keep=20)

        def is_due(what: str, period: float) -> bool:
            if now < due[what]:
                return False
            due[what] = now + period
            return True

        scene.poll(now_ns)
        executor = scene.executor
        texts, chunks, scene.texts, scene.chunks = scene.texts, scene.chunks, [], []  # a bug below is reported once
        for text in texts:
            self._hands.heard(text)
        for chunk, came in chunks:
            if drawn := traces.take_chunk(chunk, came):
                self._tell("chunk", drawn, keep=50)
        if executor is not None:
            traces.take_status(executor)
        traces.measured(scene.joints, [position for position, _ in scene.joints.values()])
        traces.commanded(scene.commands, list(scene.commands.values()))
        scene.commands.clear()
        sample = traces.sample(now_ns)
        if not self._server.sessions:
            traces.fates.clear()
            return
        self._tell("sample", sample, keep=250)
        for fate in traces.fates:
            self._tell("fate", fate, keep=100)
        traces.fates.clear()
        if is_due("images", 0.9 / RATE):
            self._show_images()
        if is_due("parameters", 5.0):
            self._in_background(self._ask_parameters())
        if is_due("machine", MACHINE_PERIOD):
            folder = Path(self.parameters.recordings).expanduser()
            self._in_background(self._look_at_machine(folder))
        if is_due("checks", CHECK_PERIOD):
            self._checks = [*self._fixed, *live_checks(scene, self._processor), *self._machine]
            self._tell("checks", [asdict(check) for check in self._checks])
        if is_due("state", STATE_PERIOD):
            self._tell("state", self._state())

    def _in_background(self, task: Coroutine) -> None:
        made = asyncio.ensure_future(task)
        self._background.add(made)
        made.add_done_callback(self._background.discard)

    async def _look_at_machine(self, folder: Path) -> None:
        self._machine = await asyncio.to_thread(machine_checks, folder)

    def _tell(self, kind: str, item: Any, keep: int = 1) -> None:
        self._server.tell(kind, json.dumps(item, separators=(",", ":")), keep)

    def _show_images(self) -> None:
        for name, picture in self._scene.pictures.items():
            if not self._scene.look(name):
                continue
            for view in picture.views:
                kind = f"image {name}"
                if sessions := self._server.seeing(kind, view):
                    data = picture.encode(view, self.now_ns())
                    for session in sessions if data else ():
                        session.put(kind, data)

    async def _ask_parameters(self) -> None:
        """Those that decide how the executor blends, and who may take over from the policy."""
        names = [*BLENDED, _SOURCE]
        try:
            answer = await self._hands.ask(self._asked_parameters, GetParameters.Request(names=names), "executor_node")
        except InputError:
            return
        values = map(parameter_value_to_python, answer.values)
        known = {name: value for name, value in zip(names, values, strict=False) if value is not None}
        if topic := known.pop(_SOURCE, ""):
            own = f"executor_node{topic[1:]}" if topic.startswith("~") else topic
            topic = self.resolve_topic_name(own)
            self._source = {"topic": plain(topic, 120), "there": self.count_publishers(topic) > 0}
        self._traces.take_parameters(known)

    # Data of the page

    def _greeting(self, session: Session) -> str:
        traces = {"samples": list(self._traces.samples), "chunks": list(self._traces.chunks)}
        return json.dumps({"you": session.name, "policy_view": self._views, **robot_facts(self._robot), **traces})

    def _state(self) -> dict[str, Any]:
        scene, server, hands = self._scene, self._server, self._hands
        return {
            "at": time.monotonic(), "policy": policy_state(scene.policy),
            "executor": executor_state(scene.executor), "pressing": hands.pressing,
            "source": self._source,
            "latency": latency(scene.policy, scene.executor, scene.budget, 1.0 / self._robot.control_rate),
            "period": 1.0 / self._robot.control_rate,
            "pages": [session.name for session in server.sessions],
            "armed": server.armed.name if server.armed else "",
            "task": hands.task, "paused": plain(hands.paused, 500), "history": list(hands.history),
            "recorder": self._episodes.there, "recording": self._episodes.recording,
            "episodes": list(self._episodes.list), "replaying": self._replays.busy,
            "cameras": {name: {"trouble": plain(picture.trouble, 200)} for name, picture in scene.pictures.items()},
        }  # fmt: skip

    # Requests of the page

    def _press(self, session: Session) -> None:
        if not self._hands.pressing:
            self.get_logger().error(f"e-stop pressed by {session.name}")
        self._hands.press()

    async def _do(self, session: Session, wish: dict[str, Any]) -> str:
        """A request of an armed session. Raises InputError to refuse it."""
        hands, who, what = self._hands, session.name, wish["do"]
        executor = self._scene.executor
        current = executor.instruction if executor else ""
        if what in _STARTS and (old := time.monotonic() - wishes.number(wish, "seen", time.monotonic())) > OLD:
            raise InputError(f"{what}: requested by a page that shows the state of {old:.0f} s ago; request it again")
        if what == "start":
            return await hands.start(who, wishes.text(wish, "text"), wishes.seconds(wish))
        if what == "resume":
            return await hands.start(who, hands.paused, wishes.seconds(wish))
        if what in ("stop", "pause"):
            return await hands.stop(what == "pause", current)
        if what == "reset":
            return await hands.reset(who, wishes.text(wish, "why"))
        if what == "take_over":
            return await hands.take_over(who, wishes.flag(wish, "take"))
        if what == "change":
            return await hands.change(who, wishes.text(wish, "node"), wishes.text(wish, "transition"))
        if what == "record":
            return await self._episodes.start(who, current)
        if what == "outcome":
            return await self._episodes.end(who, wishes.text(wish, "outcome"), wishes.text(wish, "note"))
        if what == "replay":
            episode = self._episodes.ended(wishes.text(wish, "name"))
            return await self._replays.show(session, episode, self._in_background)
        raise InputError(f"{plain(what, 40)!r}: not known here")


def main(args: list[str] | None = None) -> int:
    return spin_node(ConsoleNode, args)


if __name__ == "__main__":
    sys.exit(main())
