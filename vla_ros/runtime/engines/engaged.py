"""A policy whose methods an engine runs: each is traced, converted and kept for each new set of shapes."""

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.core.files import new_folder
from vla_ros.policies.policy import Answer, Batch, Memory, Policy
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.runtime.engines.backends import Backend, Runner
from vla_ros.runtime.engines.graphs import Shape, apart, arguments, trace
from vla_ros.runtime.network import Held, PlainNetwork
from vla_ros.runtime.remote.digest import digest
from vla_ros.runtime.stages import StageTimer

logger = logging.getLogger(__name__)
TOLERANCE = 1e-4  # of the range of the actions, in float32
MOST = 500_000_000  # parameters that `auto` converts: of more it takes minutes, and the memory twice
SMALL = 20_000_000  # parameters; a graph of all steps of more of them takes minutes to convert and gains little
_KEPT = 8  # policies whose graphs stay on the disk


def methods(policy: Policy) -> tuple[str, ...]:
    """The methods that an engine runs: those for torch.compile, and the whole of `act` if it has no step method, or if
    the policy is so small that calling each step costs more than computing it."""
    whole = "act" in policy.traits.recordable and (policy.compiled == ("encode",) or _count(policy) < SMALL)
    return tuple(dict.fromkeys((*policy.compiled, *(["act"] if whole else []))))


def _count(policy: Policy) -> int:
    return sum(parameter.numel() for parameter in policy.parameters())


def unasked(policy: Policy) -> str:
    """Why `auto` leaves a policy with torch; empty where it does not."""
    if not policy.traits.pads:
        return "each new length of instruction would be converted when it comes"
    count = _count(policy)
    return f"{count / 1e9:.2g} billion parameters, more than {MOST / 1e9:g} billion" if count > MOST else ""


class Refusal(InputError):
    """An engine does not run a policy, for a reason that stays."""


@contextmanager
def remembered(file: Path) -> Iterator[None]:
    """Keeps in the file why the block was refused. Raises that InputError, and runs nothing, where it is there."""
    with suppress(OSError):
        raise InputError(f"{file.read_text(encoding='utf-8')} (tried before; delete {file} to try again)")
    try:
        yield
    except Refusal as refusal:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(refusal), encoding="utf-8")
        raise


@contextmanager
def survived(folder: Path) -> Iterator[None]:
    """Leaves a file there until the block is over; the system's lock on it ends with the process.

    Raises InputError where the file is there and nobody holds the lock (an earlier process ended inside the block, as
    a fault of the engine's own code or a lack of memory ends it), and where none can be written.
    """
    mark, own = folder / "trying", folder / f"trying-{os.getpid()}"
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError), mark.open() as left:
                if _locked(left) and os.fstat(left.fileno()).st_nlink:  # else it ended well just now
                    raise InputError(f"the last process that tried it ended while it did; delete {mark} to try again")
            file = stack.enter_context(own.open("w"))
            _locked(file)
            own.rename(mark)
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror}") from None
        stack.callback(mark.unlink, missing_ok=True)
        yield


def _locked(file: IO) -> bool:
    """Whether the lock on the file is ours now; another process has it otherwise."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def difference(found: Any, expected: Any) -> float:
    """The largest error of a tree's tensors (actions, memory), each as a fraction of its range; for integers, 0 if they
    are equal, else 1."""
    pairs = zip(apart(found)[0], apart(expected)[0], strict=True)
    return float(torch.tensor([_error(*pair) for pair in pairs]).max())  # NaN stays NaN


def _error(found: Tensor, expected: Tensor) -> float:
    if not expected.is_floating_point():
        return float(not torch.equal(found, expected))
    return float((found - expected).abs().max() / (expected.max() - expected.min()).clamp(min=1e-6))


def noisy(batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with noise as images, which tests more of a network than black ones."""
    return {name: torch.randint(0, 256, value.shape, dtype=torch.uint8, generator=generator)
            if value.dtype == torch.uint8 else value for name, value in batch.items()}  # fmt: skip


def reason(error: Exception) -> str:
    """The most informative line of a converter's message: OpenVINO's last, which names operations, torch's first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if "No conversion rule" in lines[-1] else 0][:300]


def _passes(error: Exception) -> bool:
    """Whether it may be otherwise at the next start: a full disk, too little memory."""
    return isinstance(error, OSError | MemoryError) or "alloc" in str(error)


def cache_folder(loaded: LoadedPolicy, backend: type[Backend]) -> Path:
    """Where the graphs of a policy are kept."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vla_ros/engines"
    return root / f"{backend.name}-{digest(loaded)}"


class Engaged:
    """Takes the place of some methods of a policy on the CPU, in float32.

    Args:
        policy: a copy that the engine made (`Backend.copied`); its methods are replaced.
        folder: where graphs are kept between one start and the next.

    A method that cannot be converted raises InputError at its first call with new shapes.
    """

    def __init__(self, policy: Policy, backend: type[Backend], folder: Path) -> None:
        self.backend, self._policy, self.folder = backend, policy, folder
        self._threads = torch.get_num_threads()
        self._ready: dict[tuple[str, Shape], tuple[Runner, Shape]] = {}
        self.reused = False  # a graph of an earlier start, whose weights may have been different
        self._plain = False  # methods are torch's: one is traced, perhaps with others that it calls
        for name in methods(policy):
            setattr(policy, name, partial(self._call, name, getattr(policy, name)))

    def forget(self) -> None:
        """Delete all graphs, also on the disk."""
        self._ready.clear()
        self.reused = False
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def attempt(self, batch: Batch, held: Held) -> Iterator[None]:
        """For a `prove` that nobody asked for: one that was refused, or ended its process, is not tried again with the
        same shapes and versions."""
        shape = apart([batch, held.memory, held.draws, held.fixed])[1]
        try:
            name = f"refused-{self._digest(shape)}"
        except Exception as error:  # of the engine's modules, whose libraries may not fit this machine
            raise InputError(f"engine {self.backend.name}: {reason(error)}") from error
        with remembered(self.folder / name), survived(self.folder):
            yield

    def prove(
        self, batch: Batch, held: Held, plain: PlainNetwork, network: PlainNetwork, exact: PlainNetwork | None = None
    ) -> float:
        """Compare what `network`, of this policy, answers to the batch, its images noise, with `plain`, torch's answer;
        of a policy that remembers, also to the same batch a step later.

        Returns the difference; says that to `exact`, torch's with other weights, where it is given. Raises InputError
        where it is too large; graphs of an earlier start are then made anew first, since the weights may have been
        others.
        """
        noise = torch.Generator().manual_seed(0)
        batch = noisy(batch, noise)
        for draws in held.draws.values():
            draws.normal_(generator=noise)
        asked = [(batch, held.memory)]
        expected = _answers(plain, held, asked)
        if held.memory is not None:  # it is zeros at first, which hide much
            steps = [1] * len(next(iter(batch.values())))
            asked.append((self._policy.with_elapsed(batch, steps), expected[0].memory))
            expected += _answers(plain, held, asked[1:])
        if exact is not None:
            away = difference(expected, _answers(exact, held, asked))
            logger.warning("engine %s: with these weights the actions for noise differ from float32's by %.1e of their "
                           "range", self.backend.name, away)
        for _ in range(2):
            error = difference(_answers(network, held, asked), expected)
            if error <= TOLERANCE:
                return error
            if not self.reused:
                break
            self.forget()
        raise Refusal(f"engine {self.backend.name}: its actions differ from torch's by {error:.1e} of their range, "
                      f"expected at most {TOLERANCE:.0e}; expected engine torch")

    def _call(self, name: str, method: Callable, *args: Any, **kwargs: Any) -> Any:
        given = arguments(method, args, kwargs)
        if self._plain or given.get("steer") is not None:  # steered is rare; its steps run here one by one
            return method(*args, **kwargs)
        tensors, shape = apart(given)
        if (name, shape) not in self._ready:
            try:
                self._plain = True
                self._ready[name, shape] = self._prepared(name, method, given, shape, len(tensors))
            except InputError:
                raise
            except Exception as error:  # of torch.export or of the converter, of any kind
                kind = InputError if _passes(error) else Refusal
                raise kind(f"engine {self.backend.name}: {type(self._policy).__name__}.{name} cannot be converted: "
                           f"{reason(error)}; expected engine torch") from error
            finally:
                self._plain = False
        run, result = self._ready[name, shape]
        return result.filled(run(tensors))

    def _digest(self, shape: Shape) -> str:
        said = f"{shape} {self.backend.version()} {torch.__version__} {self.backend.form}".rstrip()
        return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()

    def _prepared(
        self, name: str, method: Callable, given: dict[str, Any], shape: Shape, count: int
    ) -> tuple[Runner, Shape]:
        """The function that runs the method for arguments of this shape, and the tree of its result."""
        backend, inputs = self.backend, [f"input.{number}" for number in range(count)]
        place = self.folder / f"{name}-{self._digest(shape)}"
        file = place / f"graph{backend.ending}"
        if file.is_file():
            try:
                run = backend.load(file, inputs, self._threads)
            except Exception as error:  # a part of it was deleted, as caches are
                logger.warning("engine %s: %s cannot be read: %s", backend.name, file, reason(error))
            else:
                self.reused = True
                return run, apart(method(**given))[1]
        logger.warning("engine %s: converting %s, once for this checkpoint", backend.name, name)
        start = time.monotonic()
        graph = trace(self._policy, method, given)
        outputs = [f"output.{number}" for number, _ in enumerate(graph.program.graph_signature.user_outputs)]
        with new_folder(place, "graph") as part:
            backend.write(graph, part / file.name, inputs, outputs)
            backend.rehearse(part / file.name)
        _prune(self.folder)
        run = backend.load(file, inputs, self._threads)
        logger.warning("engine %s: %s is ready after %.1f s", backend.name, name, time.monotonic() - start)
        return run, graph.result


def _answers(network: PlainNetwork, held: Held, asked: list[tuple[Batch, Memory]]) -> list[Answer]:
    """To each batch, with that memory in place of the session's."""
    own, found = held.memory, []
    try:
        for batch, memory in asked:
            held.memory = memory
            found.append(network.run(batch, None, StageTimer(torch.device("cpu"))))
    finally:
        held.memory = own
    return found


def _prune(newest: Path) -> None:
    """Keep only the graphs of the policies that were written last."""
    os.utime(newest)
    for old in sorted(newest.parent.iterdir(), key=lambda folder: folder.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
