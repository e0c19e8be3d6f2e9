"""A loaded policy ready to serve: warmed up, timed, with its buffers allocated."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vla_ros.core.chunk import Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.flow import USUAL
from vla_ros.policies.policy import Batch, Draws, Memory, Steer, Traits
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.runtime.engines.backends import Backend, find
from vla_ros.runtime.engines.engaged import Engaged, cache_folder, unasked
from vla_ros.runtime.network import Held, PlainNetwork, RecordedNetwork, copy_into, private_copy, shapes_of
from vla_ros.runtime.rolling import require_rolling, rolled
from vla_ros.runtime.rtc import RunningChunk
from vla_ros.runtime.stages import StageTimer

logger = logging.getLogger(__name__)

# Prompts with these numbers of words are run in the warm-up, so that every length of prompt that the processor
# distinguishes has been run (and recorded) before the robot moves.
_WARM_WORDS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)


@dataclass(frozen=True)
class SessionOptions:
    """How to run a policy.

    Attributes:
        num_steps: of a policy that works in steps; None for the checkpoint's own number.
        graph: record CUDA graphs (on a GPU; a CPU has none).
        compile: let torch.compile fuse the network's operations; the warm-up takes minutes for a large policy.
        guided: real-time chunking: each chunk agrees with the rest of the last one. Recordings then always compute the
            guidance; if nothing of that chunk is left, its weights are zero, which has no effect.
        exact_guidance: guide with the vector-Jacobian product; `act` then runs unrecorded.
        max_guidance: the bound β of the guidance weight; None for the checkpoint's own.
        roll_state: show the policy the state that the robot will have when its answer is there, by the running chunk;
            the answer begins then.
        seed: of the numbers that actions are drawn from; row b of a batch draws from `seed + b`.
        max_graphs: recorded sets of input shapes that are kept.
        engine: what runs the network on a CPU: "torch", "openvino", "openvino_int8" (weights of eight bits, so other
            actions), "onnxruntime", or "auto": OpenVINO where it is installed and gives torch's numbers.

    Raises InputError for options of the guidance without `guided`.
    """

    num_steps: int | None = None
    graph: bool = True
    compile: bool = False
    guided: bool = False
    exact_guidance: bool = False
    max_guidance: float | None = None
    roll_state: bool = False
    seed: int = 0
    max_graphs: int = 8
    engine: str = "torch"

    def __post_init__(self) -> None:
        for name, given in (("rtc_exact", self.exact_guidance), ("rtc_max_guidance", self.max_guidance is not None)):
            if given and not self.guided:
                raise InputError(f"{name} without rtc: nothing is guided; expected rtc: true, or {name} left out")


@dataclass(frozen=True)
class Inference:
    """A policy's answer to one sample.

    Attributes:
        targets: of the robot, H rows.
        answer: on the CPU, (H, D) float32 in the policy's own space, or (L,) int64 tokens.
        encode_time, act_time: s, of the policy's two stages.
        total_time: s, from the samples to the targets.
        stale: `begin` was called for its episode meanwhile: it is out of date.
        flight_time: s of it on the network, from sending the question to its answer less what the server needed; 0
            where the policy runs here, or is not known.
        lead: s from the observation to the instant of row 0.
    """

    targets: Targets
    answer: Tensor
    encode_time: float
    act_time: float
    total_time: float
    stale: bool = False
    flight_time: float = 0.0
    lead: float = 0.0


@contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("vla_ros")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class PolicySession:
    """Runs one policy on one device for `size` episodes side by side; all but `begin` from one thread at a time.

    It owns the policy's memory of each episode, the random draws, and the running chunk. The given policy is not
    changed; its weights must not change while the session exists.

    Args:
        loaded: from `vla_ros.policies.load`, on the device where it is to run.

    Raises InputError for options that the policy cannot honour.
    """

    def __init__(self, loaded: LoadedPolicy, options: SessionOptions | None = None, size: int = 1) -> None:
        self.loaded, self.options, self.size = loaded, options or SessionOptions(), size
        self.processor = loaded.processor
        self.device = next(loaded.policy.parameters()).device
        backend = self._backend()
        self.policy = backend.copied(loaded.policy) if backend else private_copy(loaded.policy)
        self._require_guidance()
        with torch.no_grad():
            self._held = Held(
                memory=self._fresh_memory(),
                draws={name: torch.zeros(shape, device=self.device) for name, shape in self.policy.draws(size).items()},
                fixed=self.policy.prepare(self.options.num_steps),
                steer=self._no_steer() if self.options.guided else None,
            )
        if self.options.roll_state:
            require_rolling(self.processor, self.remembers, self.options.guided)
        self._uncalled = set(self.policy.compiled) if self.options.compile else set()
        for name in self._uncalled:
            setattr(self.policy, name, self._compiled(name))
        self.recorded = self.device.type == "cuda" and self.options.graph
        self._engaged = Engaged(self.policy, backend, cache_folder(loaded, backend)) if backend else None
        if self.recorded:
            self._network = RecordedNetwork(self.policy, self._held, self.device, self.options.max_graphs)
        else:
            self._network = PlainNetwork(self.policy, self._held, self.device)
        self._warm = False
        self._met: set[tuple] = set()  # shapes
        self._generators = [torch.Generator(self.device) for _ in range(size)]
        self._running = [RunningChunk(self.processor) for _ in range(size)]
        self._latest: list[tuple[Sample, Inference]] = []
        self._stamps: list[int | None] = [None] * size  # ns, of the last observation that was answered
        self._lock = threading.Lock()  # guards the two that follow
        self._beginnings = [0] * size
        self._waiting: set[int] = set()  # rows to begin again
        self.seed()

    @property
    def traits(self) -> Traits:
        return self.policy.traits

    @property
    def family(self) -> str:
        return self.loaded.family

    @property
    def title(self) -> str:
        """What runs where, for display."""
        engine = f" with {self._engaged.backend.name}" if self._engaged else ""
        return f"{self.family} ({self.loaded.layout}) on {self.device}{engine}"

    @property
    def remembers(self) -> bool:
        """Whether an answer depends on earlier observations."""
        return self.traits.paced or self._held.memory is not None

    def close(self) -> None:
        """Nothing to end; a policy on another machine has a connection."""

    def _compiled(self, name: str) -> Callable:
        """Compile for fixed shapes; the warm-up covers every length of prompt, because a new one would compile
        again."""
        compiled = torch.compile(getattr(self.policy, name), dynamic=False)

        def call(*args: object, **kwargs: object) -> object:
            self._uncalled.discard(name)
            return compiled(*args, **kwargs)

        return call

    def _backend(self) -> type[Backend] | None:
        """The engine, where it is not torch."""
        options, policy = self.options, self.loaded.policy
        dtype = next((p.dtype for p in policy.parameters() if p.dtype != torch.float32), torch.float32)
        backend = find(options.engine, self.device, dtype, options.compile, options.exact_guidance)
        if backend and options.engine == "auto" and (why := unasked(policy)):
            logger.info("engine auto: torch, since %s", why)
            return None
        return backend

    def _require_guidance(self) -> None:
        options, policy = self.options, self.policy
        if options.guided:
            policy.require_guidance("exact" if options.exact_guidance else "prior")
        bounded = "exact" in policy.traits.guidance and not getattr(policy, "trained_rows", 0)
        if options.max_guidance is not None and not bounded:
            raise InputError(f"rtc_max_guidance {options.max_guidance:g}: this {type(policy).__name__} continues a "
                             "chunk without such a bound; expected 0, the default")

    def _prove(self, batch: Batch) -> None:
        """Raises InputError where the engine does not answer as torch does; `auto` then goes on with torch."""
        backend, policy = self._engaged.backend, self.loaded.policy
        plain = PlainNetwork(backend.copied(policy), self._held, self.device)
        exact = None if backend.exact else PlainNetwork(private_copy(policy), self._held, self.device)
        auto = self.options.engine == "auto"
        try:
            with self._mode(), self._engaged.attempt(batch, self._held) if auto else nullcontext():
                self._engaged.prove(batch, self._held, plain, self._network, exact)
        except InputError as error:
            if not auto:
                raise
            logger.warning("engine auto: torch, since %s", error)
            self.policy, self._engaged = private_copy(policy), None  # `plain` may have the engine's weights
            with torch.no_grad():
                self._held.fixed = self.policy.prepare(self.options.num_steps)
            self._network = PlainNetwork(self.policy, self._held, self.device)

    def _fresh_memory(self) -> Memory:
        return pytree.tree_map_only(Tensor, Tensor.clone, self.policy.begin(self.size))

    def _no_steer(self) -> Steer:
        shape = (self.size, self.policy.config.horizon, self.policy.config.action_dim)
        counts = [torch.zeros(self.size, dtype=torch.int64, device=self.device) for _ in range(2)]
        actions = torch.zeros(shape, device=self.device)
        most = self.options.max_guidance
        if most is None:
            most = getattr(self.policy.config, "guidance", USUAL).maximum
        return Steer(actions, *counts, self.options.exact_guidance, most)

    def begin(self, rows: Iterable[int] | None = None) -> None:
        """Begin new episodes, of all rows by default: without memory and running chunk. From any thread, at any time.

        It only marks the rows: the next `infer` resets them, and an answer being computed is stale.
        """
        with self._lock:
            for row in range(self.size) if rows is None else rows:
                self._beginnings[row] += 1
                self._waiting.add(row)

    def seed(self, seed: int | None = None, rows: Iterable[int] | None = None) -> None:
        """Restart only the random draws, those of row b from `seed + b` (the option's by default)."""
        for row in range(self.size) if rows is None else rows:
            self._generators[row].manual_seed((self.options.seed if seed is None else seed) + row)

    def meet(self, samples: Sequence[Sample], rounds: int = 2) -> None:
        """Run samples of new shapes so that the first inference takes as long as every other.

        It changes neither memory nor draws, and runs nothing for shapes that were run before. Raises InputError when a
        sample does not fit the policy.
        """
        batch = self._batch(samples)
        if self._warm and not (self.recorded or self.options.compile or self._engaged):
            return  # then only the very first inference is slower
        shapes = shapes_of(batch)
        if shapes in self._met and self._network.holds(shapes):
            return
        self._warm = True
        if self._engaged:
            self._prove(batch)
        with self._mode():
            for steer in {id(s): s for s in (self._held.steer, None)}.values():
                for _ in range(rounds):
                    self._network.run(batch, steer, StageTimer(self.device)).actions.cpu()
        self._met.add(shapes)

    def warm_up(self, sample: Sample, rounds: int = 2) -> int:
        """Run every shape of input that instructions can lead to. Returns their number.

        Raises InputError when the sample does not fit the policy, or a part that was to be compiled never ran.
        """
        found = {}
        for words in _WARM_WORDS:
            longer = [Sample(sample.images, sample.state, " ".join(["go"] * words), values=sample.values)] * self.size
            try:
                with _without_warnings():  # some of these prompts are longer than the policy takes
                    found.setdefault(shapes_of(self.processor.inputs(longer)), longer)
            except InputError:
                if not found:
                    raise
                break
        for samples in found.values():
            self.meet(samples, rounds)
        if self._uncalled:
            raise InputError(f"compile: {type(self.loaded.policy).__name__} names {sorted(self._uncalled)} in "
                             "`compiled`, which its stages never call")
        return len(found)

    def infer(
        self, samples: Sequence[Sample], steer: Steer | None = None, draws: Draws | None = None
    ) -> list[Inference]:
        """A chunk for each row's sample.

        The policy's new memory is kept only if all of its answer is finite, so that a bad frame has no later effect.

        Args:
            samples: one for each row; their `stamp_ns` says where they are in the running chunk.
            steer: in place of what the running chunk says; needs the option `guided`.
            draws: in place of the session's own, by name.

        Raises:
            InputError: a sample does not fit, or the policy answered with numbers that are not finite.
        """
        start = time.perf_counter()
        beginnings = self._begin_waiting()
        leads = [0.0] * len(samples)
        if self.options.roll_state:
            samples, leads = rolled(samples, self._running)
        batch = self._batch(samples)
        timer = StageTimer(self.device)
        with self._mode():
            for name, buffer in self._held.draws.items():
                if draws is not None and name in draws:
                    buffer.copy_(draws[name])
                else:
                    for row, generator in zip(buffer, self._generators, strict=True):
                        row.normal_(generator=generator)
            result = self._network.run(batch, self._steered(steer, samples), timer)
            sound = [v.isfinite().all() for v in pytree.tree_leaves(result.memory)
                     if isinstance(v, Tensor) and v.is_floating_point()]
            kind = torch.float32 if result.actions.is_floating_point() else result.actions.dtype
            answers = result.actions.to("cpu", kind, copy=True)  # the one wait for the device
            encode_time, act_time = timer.seconds()
            targets = self.processor.outputs(answers, samples)
            for part in [part for one in targets for part in one.parts]:
                _refuse_not_finite("policy", part.data, part.names)
            if sound and not torch.stack(sound).all():
                raise InputError("policy: its memory would not be finite; the observation is left out")
            if self._held.memory is not None:
                copy_into(self._held.memory, result.memory)
        self._stamps = [sample.stamp_ns for sample in samples]
        with self._lock:
            stale = [then != now for then, now in zip(beginnings, self._beginnings, strict=True)]
        times = encode_time, act_time, time.perf_counter() - start
        rows = zip(targets, answers, stale, leads, strict=True)
        inferences = [Inference(one, answer, *times, late, lead=lead) for one, answer, late, lead in rows]
        self._latest = list(zip(samples, inferences, strict=True))
        return inferences

    def delivered(self, delay: float) -> None:
        """The robot got the chunks of the last `infer` `delay` s after their observations: now they are running."""
        for running, (sample, inference) in zip(self._running, self._latest, strict=True):
            if not inference.stale:
                running.remember(sample.stamp_ns, inference.targets, delay)

    def _mode(self):
        return torch.no_grad() if self.options.exact_guidance else torch.inference_mode()

    def _begin_waiting(self) -> list[int]:
        """Begin the episodes that wait for it; how often each row has begun."""
        with self._lock:
            rows, beginnings = sorted(self._waiting), list(self._beginnings)
            self._waiting.clear()
        if rows and self._held.memory is not None:
            with self._mode():
                copy_into(self._held.memory, self._fresh_memory(), rows)
        for row in rows:
            self._running[row].reset()
            self._stamps[row] = None
        return beginnings

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        if len(samples) != self.size:
            raise ValueError(f"{len(samples)} samples for a session of {self.size}")
        for sample in samples:  # a prompt that tells the state would make a number of what is none
            _refuse_not_finite("state", sample.state, self.processor.joints)
        step_ns = self.processor.step_dt * 1e9
        return self.policy.with_elapsed(self.processor.inputs(samples), [
            0 if last is None else max(0, round((sample.stamp_ns - last) / step_ns))
            for sample, last in zip(samples, self._stamps, strict=True)
        ])

    def _steered(self, given: Steer | None, samples: Sequence[Sample]) -> Steer | None:
        """Fill the session's buffers for it; None if there is nothing to agree with and nothing is recorded."""
        held = self._held.steer
        if held is None:
            if given is not None:
                raise ValueError("steer needs the session option `guided`")
            return None
        if given is not None:
            copy_into((held.actions, held.frozen, held.overlap), (given.actions, given.frozen, given.overlap))
            return held
        tails = [running.tail(sample) for running, sample in zip(self._running, samples, strict=True)]
        for row, tail in enumerate(tails):
            held.frozen[row], held.overlap[row] = (0, 0) if tail is None else tail[1:]
            if tail is not None:
                held.actions[row].copy_(tail[0])
        return held if self.recorded or any(tails) else None


def _refuse_not_finite(what: str, rows: np.ndarray, names: Sequence[str]) -> None:
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise InputError(f"{what}: {names[column]}, row {row} is {rows[row, column]}, expected a finite number")
