"""A policy as two graphs for other programs: `encode`, which sees the observation, and `act`, which makes the actions.

The folder has a file of each, `graphs.json` (names, shapes and order of inputs and outputs, and the constants of the
processor) and `example.npz`, an observation with its answer, to test a program with.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.core.files import new_folder
from vla_ros.core.observation import Sample
from vla_ros.policies.policy import Policy
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.runtime.engines.backends import Backend, OnnxRuntime, OpenVino, OpenVinoInt8, TensorRt, TorchProgram
from vla_ros.runtime.engines.engaged import TOLERANCE, difference, noisy, reason
from vla_ros.runtime.engines.graphs import Graph, Slot, apart, names, trace
from vla_ros.runtime.network import private_copy

FORMATS: dict[str, type[Backend]] = {"onnx": OnnxRuntime, "openvino": OpenVino, "openvino_int8": OpenVinoInt8,
                                     "tensorrt": TensorRt, "pt2": TorchProgram}  # fmt: skip


def export_graphs(path: Path, loaded: LoadedPolicy, sample: Sample, form: str, num_steps: int | None = None) -> str:
    """Write the folder, complete or absent, for observations of the sample's shapes.

    Args:
        loaded: in float32 on the CPU.
        form: a key of `FORMATS`.
        num_steps: of the denoising that is a part of `act`; None: the checkpoint's own number.

    Returns the difference of its actions from torch's, and what is left to do elsewhere. Raises InputError if a stage
    is not a graph of fixed shapes, cannot be converted, or gives other answers than torch.
    """
    backend = FORMATS[form]
    backend.require()
    policy = backend.copied(loaded.policy)
    for stage in policy.stages:
        if stage not in policy.traits.recordable:
            raise InputError(f"export: {stage} of {type(policy).__name__} stops depending on the values that it "
                             "computes, which is not possible in a graph of fixed shapes; expected a family with "
                             "a fixed number of steps")
    generator = torch.Generator().manual_seed(0)
    batch = noisy(policy.with_elapsed(loaded.processor.inputs([sample])), generator)
    draws = {name: torch.randn(shape, generator=generator) for name, shape in policy.draws(1).items()}
    memory = policy.begin(1)
    with torch.no_grad():
        fixed = policy.prepare(num_steps)
        if memory is not None:  # that of a step before: it is zeros at first, which hide much
            memory = policy.act(policy.encode(batch, memory, draws), draws, fixed).memory
            batch = policy.with_elapsed(batch, [1])
        context = policy.encode(batch, memory, draws)
        expected = policy.act(context, draws, fixed)
    given = {"encode": {"batch": batch, "memory": memory, "draws": draws},
             "act": {"context": context, "draws": draws}}  # fmt: skip
    tensors: dict[str, Tensor] = {}
    with new_folder(path, "graphs", replace=False) as folder:
        said = {}
        for stage, constants in (("encode", {}), ("act", {"fixed": fixed})):
            said[stage] = _write(folder, policy, stage, given[stage], constants, backend, tensors)
        answer = {field.name: getattr(expected, field.name) for field in fields(expected)}
        error = difference([tensors[name] for name in names(answer)], expected)
        if not error <= TOLERANCE:
            raise InputError(f"export to {form}: its actions differ from torch's by {error:.1e} of their range, "
                             f"expected at most {TOLERANCE:.0e}; nothing was written")
        described = _described(loaded, policy, sample, num_steps) | {"graphs": said, "format": form}
        (folder / "graphs.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        np.savez(folder / "example.npz", **_example(given["encode"], expected.actions))
    files = " and ".join(each["file"] for each in said.values())
    words = f"{form}: {files}, actions as torch's to {error:.1e} of their range"
    if left := backend.left():
        return f"{words}; {left}"
    if backend.exact:
        return words
    exact = private_copy(loaded.policy)
    with torch.no_grad():
        answer = exact.act(exact.encode(batch, memory, draws), draws, exact.prepare(num_steps))
    away = difference(expected.actions, answer.actions)
    return f"{words} with the same weights, and {away:.1e} from those of float32 weights"


def _write(
    folder: Path, policy: Policy, stage: str, given: Mapping[str, Any], constants: Mapping[str, Any],
    backend: type[Backend], tensors: dict[str, Tensor],
) -> dict[str, Any]:
    """Write a stage, run it on what `tensors` has of its inputs, else on `given`, and put its outputs there; its
    entry in graphs.json."""
    inputs = names(given)
    try:
        graph = trace(policy, getattr(policy, stage), given, constants)
        outputs = names_of(graph, {"encode": "context", "act": ""}[stage])
        file = folder / f"{stage}{backend.ending}"
        backend.write(graph, file, inputs, outputs)
        run = backend.load(file, inputs, torch.get_num_threads())
        found = run([tensors.get(name, value) for name, value in zip(inputs, apart(given)[0], strict=True)])
    except Exception as error:  # of torch.export or of the converter, of any kind
        raise InputError(f"export: {stage} of {type(policy).__name__} cannot be converted: {reason(error)}") from error
    tensors |= dict(zip(outputs, found, strict=True))
    slots = {"inputs": zip(inputs, apart(given)[0], strict=True), "outputs": zip(outputs, found, strict=True)}
    return {"file": file.name} | {
        which: [{"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
                for name, value in each] for which, each in slots.items()
    }  # fmt: skip


def names_of(graph: Graph, root: str) -> tuple[str, ...]:
    """Of what a graph gives, by their places below `root`."""
    blank = [torch.empty(0) for leaf in graph.result.leaves if isinstance(leaf, Slot)]
    tree = graph.result.filled(blank)
    return names({root: tree} if root else {field.name: getattr(tree, field.name) for field in fields(tree)})


def _described(loaded: LoadedPolicy, policy: Policy, sample: Sample, num_steps: int | None) -> dict[str, Any]:
    processor = loaded.processor
    return {
        "family": loaded.family, "horizon": policy.config.horizon, "action_dim": policy.config.action_dim,
        "step_dt": processor.step_dt, "joints": list(processor.joints), "cameras": list(processor.cameras),
        "num_steps": num_steps or getattr(policy.config, "num_steps", None), "instruction": sample.instruction,
        "processor": plain(processor),
    }  # fmt: skip


def _example(given: Mapping[str, Any], actions: Tensor) -> dict[str, np.ndarray]:
    found = dict(zip(names(given), apart(given)[0], strict=True)) | {"actions": actions}
    return {name: value.numpy() for name, value in found.items()}


def plain(value: Any) -> Any:
    """Records, arrays and maps as JSON has them; of objects that are none of these (a tokenizer) their kind."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | np.generic | Tensor):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(each) for each in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    return type(value).__name__
