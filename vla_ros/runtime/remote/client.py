"""A server's state of one client, and the conversion of its requests to samples."""

import time
from collections import deque
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.instruction import instruction_problem
from vla_ros.core.observation import Observation, Sample
from vla_ros.core.robot import RobotSpec
from vla_ros.runtime.history import history_length, make_sample, observe
from vla_ros.runtime.remote.described import OWN, Described, find, put
from vla_ros.runtime.remote.processor import read_image
from vla_ros.runtime.remote.wire import pack, unpack
from vla_ros.runtime.session import PolicySession


class Client:
    """One connection.

    Our client sends all observation steps and says when an episode begins. For other clients each request is one
    observation at its time of arrival; earlier steps are their previous requests, and an episode begins with the
    connection and with a new prompt.

    Args:
        session: its own, or one that several share, which then has no memory.
    """

    def __init__(self, session: PolicySession, robot: RobotSpec, described: Described, shared: bool) -> None:
        self._session, self._robot, self._said, self._shared = session, robot, described, shared
        self._length_ns = history_length(session.processor) * 1e9
        self._past: deque[Observation] = deque()
        self._prompt: str | None = None
        self.whole_time = 0.0  # s that the last answer took, the way into the socket included

    def answer(self, frame: bytes | str, began: float) -> bytes:
        """The answer to a request that arrived at `began`, s of the monotonic clock.

        Raises InputError for an invalid request, which has no effect then.
        """
        if isinstance(frame, str):
            raise InputError("a frame of text, expected a message in binary")
        message = unpack(frame, "question")
        own = find(message, OWN)
        prompt = self._read_prompt(message)
        new, newest = prompt != self._prompt, None
        if own is not None:
            sample = self._own_sample(message, own, prompt)
        else:
            newest = self._instant(message, prompt, round(began * 1e9))
            sample = self._sample([newest] if new else [*self._past, newest])
        begins = own.get("begin") is True if own is not None else new
        if begins and not self._shared:
            self._session.begin()
        if own is not None and (seed := own.get("seed")) is not None:
            self._session.seed(self._session.options.seed + seed)  # 0 is a client's default
        if new and not self._session.traits.pads:
            self._session.meet([sample])
        (result,) = self._session.infer([sample])
        self._prompt = prompt
        if newest is not None:
            self._remember(newest, new)
        answer: dict[str, Any] = {}
        put(answer, self._said.keys.actions, np.concatenate([part.data for part in result.targets.parts], axis=1))
        answer["policy_timing"] = {"infer_ms": result.total_time * 1e3, "encode_ms": result.encode_time * 1e3,
                                   "act_ms": result.act_time * 1e3}  # fmt: skip
        answer["server_timing"] = {"infer_ms": (time.monotonic() - began) * 1e3}
        if self.whole_time:
            answer["server_timing"]["prev_total_ms"] = self.whole_time * 1e3
        if own is not None:
            answer[OWN] = {"number": own["number"]}
        return pack(answer)

    def _read_prompt(self, message: Any) -> str:
        prompt = find(message, self._said.keys.prompt)
        if isinstance(prompt, bytes):
            prompt = prompt.decode("utf-8", "replace")
        if not isinstance(prompt, str) or instruction_problem(prompt):
            said = instruction_problem(prompt) if isinstance(prompt, str) else f"{shown(prompt)}, expected a text"
            raise InputError(f"{self._said.keys.prompt!r}: {said}")
        return prompt

    def _own_sample(self, message: Any, own: Any, prompt: str) -> Sample:
        """A request of our client: every array has a leading axis of observation steps."""
        if not isinstance(own, dict) or type(own.get("number")) is not int or type(own.get("stamp_ns")) is not int:
            raise InputError(f"{OWN!r}: {shown(own)}, expected number and stamp_ns")
        if (seed := own.get("seed")) is not None and not (type(seed) is int and 0 <= seed < 1 << 62):
            raise InputError(f"seed {shown(seed)}, expected 0 to {(1 << 62) - 1}")
        images, values = {}, {}
        for key, camera in self._said.keys.cameras.items():
            rows = find(message, key)
            if not isinstance(rows, (list, np.ndarray)) or len(rows) != len(self._said.steps[camera]):
                raise InputError(f"{key!r}: expected {len(self._said.steps[camera])} images")
            images[camera] = np.stack(_alike([self._image(row, key) for row in rows], key))
        for name in self._said.streams:
            values |= self._values(message, name, (len(self._said.steps[name]),))
        return Sample(images, self._state(message, 2), prompt, values=values, stamp_ns=own["stamp_ns"])

    def _instant(self, message: Any, prompt: str, stamp_ns: int) -> Observation:
        """A request of any client, as an observation at its arrival: it may have waited for others."""
        images = {camera: self._image(find(message, key), key) for key, camera in self._said.keys.cameras.items()}
        values: dict[str, np.ndarray] = {}
        for name in self._said.streams:
            values |= self._values(message, name, ())
        return Observation(stamp_ns, images, self._state(message, 1), prompt, values=values)

    def _sample(self, known: list[Observation]) -> Sample:
        """The sample of the last observation, with the steps before it."""

        def build(stamp_ns: int, names: Any) -> Observation:
            return min(known, key=lambda one: abs(one.stamp_ns - stamp_ns))

        processor, now = self._session.processor, known[-1]
        return make_sample(observe(build, now.stamp_ns, processor), processor, now.instruction)

    def _remember(self, newest: Observation, new: bool) -> None:
        if new:
            self._past.clear()
        if self._length_ns:  # questions may come much faster than steps
            step_ns = self._session.processor.step_dt * 1e9
            if not self._past or newest.stamp_ns - self._past[-1].stamp_ns > step_ns / 2:
                self._past.append(newest)
            while newest.stamp_ns - self._past[0].stamp_ns > self._length_ns + step_ns:
                self._past.popleft()

    def _image(self, image: Any, key: str) -> np.ndarray:
        if image is None:
            raise InputError(f"no {key!r}, expected {sorted(self._said.keys.cameras)}")
        return read_image(image, self._said.keys.channels_first, repr(key))

    def _state(self, message: Any, axes: int) -> np.ndarray:
        """(J,) or (T, J) float64, the joints in the robot file's order."""
        parts = []
        for key, count in self._said.keys.state.items():
            part = find(message, key)
            if isinstance(part, (int, float, np.number, list)) and axes == 1:
                part = np.atleast_1d(np.asarray(part, np.float64)) if _numbers(part) else part
            sound = isinstance(part, np.ndarray) and part.dtype.kind in "fiu" and part.ndim == axes
            if not sound or part.shape[-1] != count:
                got = f"{part.dtype} of shape {part.shape}" if isinstance(part, np.ndarray) else shown(part)
                raise InputError(f"{key!r}: {got}, expected {count} numbers")
            parts.append(part.astype(np.float64))
        return np.concatenate(_alike(parts, "state", 1), axis=-1)

    def _values(self, message: Any, name: str, steps: tuple[int, ...]) -> dict[str, np.ndarray]:
        """The readings of a further stream, of the shapes and types that the robot file says."""
        found = {}
        for reading, (shape, dtype) in self._robot.stream(name).readings.items():
            key = self._said.streams[name] + reading.removeprefix(name)
            value = find(message, key)
            if not isinstance(value, np.ndarray) or value.shape != (*steps, *shape) or value.dtype != dtype:
                got = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else shown(value)
                raise InputError(f"{key!r}: {got}, expected {dtype} of shape {(*steps, *shape)}")
            found[reading] = value
        return found


def _alike(arrays: list[np.ndarray], what: str, axes: int | None = None) -> list[np.ndarray]:
    """Raises InputError unless their shapes are the same, except for the last axis where `axes` says so."""
    shapes = {array.shape[:-1] if axes else array.shape for array in arrays}
    if len(shapes) > 1:
        raise InputError(f"{what}: shapes {shown(sorted(shapes))}, expected one")
    return arrays


def _numbers(part: Any) -> bool:
    return not isinstance(part, list) or all(type(number) in (int, float) for number in part)
