"""A recorded episode in the page: what was done, and what one or two policies would have done, computed offline."""

import asyncio
import hashlib
import json
import os
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from vla_ros.bags.overlay import FILE, read_overlay
from vla_ros.core.errors import InputError
from vla_ros.core.text import plain
from vla_ros.nodes.console.server import Session

FOLDER = "replays"  # beside the bags
_PICTURE = 128  # added to the camera's number: not one of now
_NICE = "15"  # it is in no hurry, and the robot's control loop may be on the same cores
_EVERY = 5  # steps from one chunk to the next
_LONGEST = 900.0  # s
_PAUSE = 0.04  # s between looks whether a page has taken the picture before


class Replays:
    """One at a time, by `vla-ros replay` in a process of its own at a low priority.

    Attributes:
        busy: the name of the episode that is being computed, "" while none is.
    """

    def __init__(self, robot: str, policies: list[str], namespace: str) -> None:
        """`robot`: path or name. `policies`: paths of none, one or two."""
        self._robot, self._policies, self._namespace = robot, policies, namespace
        chosen = json.dumps([str(Path(path).expanduser().resolve()) for path in policies])
        self._folder = f"{FOLDER}/{hashlib.sha256(chosen.encode()).hexdigest()[:8]}"  # of these policies
        self.busy = ""
        self._newest: WeakKeyDictionary[Session, object] = WeakKeyDictionary()  # what each page is shown

    async def show(
        self, session: Session, episode: dict[str, Any], later: Callable[[Awaitable[None]], object]
    ) -> str:
        """Sends it to the page, the pictures in the background, by `later`. Raises InputError."""
        if not self._policies:
            raise InputError("replay: no policy, expected the console to be started with --policy, and --compare for "
                             "a second one")
        bag = Path(episode["folder"])
        folder = bag.parent / self._folder / bag.name
        if not (folder / FILE).exists():
            await self._compute(bag, folder)
        data = await asyncio.to_thread(read_overlay, folder)
        pictures = [(number, picture.pop("t"), picture.pop("camera"), picture.pop("jpeg"))
                    for number, one in enumerate(data["episodes"]) for picture in one.pop("pictures")]  # fmt: skip
        session.put("replay", json.dumps({"name": bag.name, **data}, separators=(",", ":")))
        self._newest[session] = pictures
        later(self._send(session, pictures))
        return f"replay of {bag.name}"

    def _command(self, bag: Path, folder: Path) -> list[str]:
        policies = [word for path in self._policies for word in ("--policy", path)]
        namespace = ["--namespace", self._namespace] if self._namespace else []
        return ["nice", "-n", _NICE, sys.executable, "-P", "-m", "vla_ros.cli.main", "replay", str(bag), "--robot",
                self._robot, *policies, *namespace, "--every", str(_EVERY), "--skip-bad", "--device", "cpu",
                "--overlay", "-o", str(folder)]  # fmt: skip

    async def _compute(self, bag: Path, folder: Path) -> None:
        if self.busy:
            raise InputError(f"replay: {self.busy} is being computed, wait for it")
        self.busy = bag.name
        process = await asyncio.create_subprocess_exec(
            *self._command(bag, folder), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            _, said = await asyncio.wait_for(process.communicate(), _LONGEST)
        except TimeoutError:
            raise InputError(f"replay: {bag.name} took longer than {_LONGEST:g} s") from None
        finally:
            self.busy = ""
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
            raise InputError(f"replay: {plain(lines[-1] if lines else 'it ended without a word', 500)}")

    async def _send(self, session: Session, pictures: list[tuple[int, float, int, bytes]]) -> None:
        """One after the other, each when the page has taken the one before: nothing else waits for them. Ends with the
        connection, and with the next replay."""
        for number, t, camera, jpeg in pictures:
            while not session.takes("picture"):
                await asyncio.sleep(_PAUSE)
                if session.gone or self._newest.get(session) is not pictures:
                    return
            session.put("picture", struct.pack("<BHf", _PICTURE + camera, number, t) + jpeg)
            await asyncio.sleep(0)
