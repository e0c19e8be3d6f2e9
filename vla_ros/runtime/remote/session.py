"""A policy on another machine, with the interface of a `PolicySession`."""

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from vla_ros.core.errors import InputError, shown
from vla_ros.core.observation import Sample
from vla_ros.core.records import record
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.policy import Traits
from vla_ros.policies.server_file import ServerFile
from vla_ros.runtime.remote.connection import Connection
from vla_ros.runtime.remote.described import OWN, Described, find
from vla_ros.runtime.remote.processor import FileProcessor, OwnProcessor
from vla_ros.runtime.remote.wire import pack, unpack
from vla_ros.runtime.session import Inference

_LONGEST_TEXT = 500  # characters of an error that are read, from its end: escaping 16 MB takes seconds


class RemoteSession:
    """Asks a server for each chunk; all but `begin` from one thread at a time.

    An answer counts if it arrives within the deadline, is a valid chunk, and belongs to the request; everything else
    raises InputError, and the next request uses a new connection if needed. Our server is told which request is the
    first of an episode; after a lost connection its policy starts a new one.

    Args:
        file: where it is and what it reads.
        robot: whose cameras and joints.
        seed: of the policy's draws, on servers of ours, which add their own.

    Raises:
        NotYet: the server is not running.
        InputError: it refuses the connection, or describes an impossible policy.
    """

    size = 1

    def __init__(self, file: ServerFile, robot: RobotSpec, seed: int = 0) -> None:
        self.file, self._robot = file, robot
        self._said: Described | None = None
        self._first_seed = seed
        self._lock = threading.Lock()  # guards the two that follow
        self._beginnings, self._begun = 0, -1  # episodes, and the one that the last answer belongs to
        self._seed: int | None = seed
        self._number, self._greeted, self._metadata = 0, False, b""
        self._connection = Connection(file, self._greet)
        try:
            self._connection.ask(None, file.patience)
            if self._said is not None:
                self.processor = OwnProcessor(file, self._said, robot)
            elif file.embodiment is not None:
                self.processor = FileProcessor(file, robot)
            else:
                raise InputError("it does not describe itself as our servers do; expected a policy file with "
                                 "`server`, `keys`, `cameras`, `state` and `step_dt`")
            if seed and self._said is None:
                raise InputError(f"seed {seed}: only our servers accept one, expected 0")
        except InputError as error:
            self.close()
            raise self._named(error) from None
        self.traits = Traits(paced=self._said is not None and self._said.paced)
        self.family = self._said.policy if self._said else "server"
        self.title = f"{self.family} at {file.server}"

    def _greet(self, metadata: Any) -> None:
        """Check a new connection. Raises InputError if another policy is served now."""
        said = find(metadata, OWN)
        described = record(Described, said, "metadata") if self.file.embodiment is None and said is not None else None
        whole = pack(metadata)  # for other servers nothing else can be compared
        if self._greeted and whole != self._metadata:
            raise InputError(f"server {self.file.server}: it serves another policy now; configure this node again")
        self._said, self._metadata = described, whole
        self._greeted = True

    def begin(self, rows: Iterable[int] | None = None) -> None:
        """Begin a new episode: an answer under way is stale. From any thread, at any time."""
        with self._lock:
            self._beginnings += 1

    def seed(self, seed: int | None = None, rows: Iterable[int] | None = None) -> None:
        """Start the draws again with the next question; without effect on servers that are not ours."""
        self._seed = self._first_seed if seed is None else seed

    def meet(self, samples: Sequence[Sample], rounds: int = 1) -> None:
        """Nothing to do: the server handles new shapes itself."""

    def warm_up(self, sample: Sample, rounds: int = 1) -> int:
        """One answer, for which the server has `patience`. Raises InputError."""
        self._ask(sample, self.file.patience)
        self._begun, self._seed = -1, self._first_seed
        return 1

    def infer(self, samples: Sequence[Sample], steer: Any = None, draws: Any = None) -> list[Inference]:
        """The chunk for one sample. Raises InputError."""
        if steer is not None or draws is not None or len(samples) != 1:
            raise ValueError("a server is asked for one chunk, without steer and draws")
        return [self._ask(samples[0], self.file.deadline)]

    def delivered(self, delay: float) -> None:
        """Nothing: no server is guided by the running chunk."""

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _ask(self, sample: Sample, seconds: float) -> Inference:
        start = time.perf_counter()
        if not np.isfinite(sample.state).all():
            raise InputError(f"state {shown(sample.state[-1].tolist())}, expected finite numbers")
        with self._lock:
            beginnings = self._beginnings
        seed, self._number, sent = self._seed, self._number + 1, 0.0
        message = self.processor.request(sample)

        def question() -> bytes:
            nonlocal sent
            if self._said is not None:
                message[OWN] = {"number": self._number, "stamp_ns": sample.stamp_ns, "seed": seed,
                                "begin": beginnings != self._begun}  # fmt: skip
            data = pack(message)
            sent = time.perf_counter()  # a new connection, if one was needed, is there
            return data

        frame = self._connection.ask(question, seconds)
        waited = time.perf_counter() - sent
        try:
            answer = _read(frame)
            if self._said is not None and find(answer, f"{OWN}.number") != self._number:
                self._connection.give_up()
                raise InputError(f"an answer to question {shown(find(answer, f'{OWN}.number'))}, expected "
                                 f"{self._number}")
            targets = self.processor.targets(answer, sample)
        except InputError as error:
            raise self._named(error) from None
        with self._lock:
            stale = beginnings != self._beginnings
            self._begun = beginnings
        if self._seed is seed:
            self._seed = None
        served = _seconds(answer, "server_timing.infer_ms", waited)
        encode, act = (_seconds(answer, f"policy_timing.{stage}_ms", waited) for stage in ("encode", "act"))
        rows = torch.from_numpy(np.concatenate([part.data for part in targets.parts], axis=1).astype(np.float32))
        flight = waited - served if served else 0.0
        return Inference(targets, rows, encode, act, time.perf_counter() - start, stale, flight)

    def _named(self, error: InputError) -> InputError:
        told = f"server {self.file.server}"
        return error if str(error).startswith(told) else type(error)(f"{told}: {error}")


def _read(frame: bytes | str) -> Any:
    """Raises InputError for the text of an error, which may be the whole of a traceback, and for no message."""
    if isinstance(frame, str):
        last = frame[-_LONGEST_TEXT:].strip().rpartition("\n")[2]
        raise InputError(f"it answered with an error: {last.strip() or 'an empty text'}")
    return unpack(frame, "answer")


def _seconds(answer: Any, key: str, waited: float) -> float:
    """ms of an answer in s; 0 if it says none, or more than was waited for it."""
    value = find(answer, key)
    if isinstance(value, (int, float, np.number)) and 0 <= float(value) / 1e3 <= waited:
        return float(value) / 1e3
    return 0.0
