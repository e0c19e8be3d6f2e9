"""OpenVINO and ONNX Runtime on the CPU, and torch's own exported programs: each writes a graph and runs it."""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from vla_ros.core.errors import InputError, shown
from vla_ros.policies.policy import Policy
from vla_ros.runtime.engines.graphs import Graph
from vla_ros.runtime.engines.int8 import compress, rounded
from vla_ros.runtime.network import private_copy

if TYPE_CHECKING:
    import openvino

Runner = Callable[[Sequence[Tensor]], list[Tensor]]


class Backend:
    """A program that reads graphs.

    Attributes:
        name: as users name it.
        needs: required modules.
        ending: of the file's name.
        exact: whether it computes with the policy's own weights.
        form: of the graphs that it writes; kept ones of another form are not read.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    ending: ClassVar[str]
    exact: ClassVar[bool] = True
    form: ClassVar[str] = ""

    @classmethod
    def missing(cls) -> list[str]:
        return [module for module in cls.needs if importlib.util.find_spec(module) is None]

    @classmethod
    def require(cls) -> None:
        """Raises InputError if its modules are not installed."""
        if missing := cls.missing():
            raise InputError(f"engine {cls.name}: no module {' and '.join(missing)}; expected: pip install -r "
                             "requirements/engine.txt")

    @classmethod
    def version(cls) -> str:
        return ""

    @classmethod
    def copied(cls, policy: Policy) -> Policy:
        """A private copy of the policy with the weights that this program computes with."""
        return private_copy(policy)

    @classmethod
    def write(cls, graph: Graph, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Write the graph, of a `copied` policy, with these names of its tensors. Raises what the converter does."""
        raise NotImplementedError

    @classmethod
    def rehearse(cls, path: Path) -> None:
        """Find out what `load` needs to know about a file that was written to be kept."""

    @classmethod
    def left(cls) -> str:
        """What is still to do with an exported graph elsewhere; empty where it is whole."""
        return ""

    @classmethod
    def load(cls, path: Path, inputs: Sequence[str], threads: int) -> Runner:
        """A function that runs the file: from tensors in the order of `inputs`, some of which the graph may not have,
        to those of the result. Raises whatever the program raises."""
        raise NotImplementedError


class OpenVino(Backend):
    name, needs, ending, form = "openvino", ("openvino",), ".xml", "without GroupNormalization"
    # In float32: where a CPU has bfloat16 OpenVINO would take that.
    settings: ClassVar = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}

    @classmethod
    def version(cls) -> str:
        import openvino

        return openvino.__version__

    @classmethod
    def write(cls, graph: Graph, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        # Its own `convert_model` does the same and tells a server in the network about it.
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
        from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose

        table = torch.export.default_decompositions()
        for operation in ops_to_not_decompose():
            with suppress(KeyError):
                table.pop(operation)
        with _quiet():
            decoder = TorchFXPythonDecoder(graph.program.run_decompositions(table).module(), dynamic_shapes=False)
            frontend = FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
        for port in model.inputs:
            port.tensor.set_names({inputs[int(port.any_name.removeprefix("tensors_"))]})
        for port, name in zip(model.outputs, outputs, strict=True):
            port.tensor.set_names(port.tensor.names | {name})  # it may be an input as well, whose name stays
        plain_norms(model)
        cls.finish(model)
        openvino.save_model(model, path, compress_to_fp16=False)

    @classmethod
    def finish(cls, model: "openvino.Model") -> None:
        """What is changed in a model before it is written."""

    @classmethod
    def rehearse(cls, path: Path) -> None:
        """Snippets (operations that OpenVINO compiles together) are used where another process survives them: their
        pass has ended the process for some networks, see `plain_norms`."""
        program = "import json, openvino, sys; openvino.Core().compile_model(*sys.argv[1:3], json.loads(sys.argv[3]))"
        command = [sys.executable, "-c", program, str(path), "CPU", json.dumps(cls.settings)]
        if sys.executable and subprocess.run(command, capture_output=True).returncode == 0:
            path.with_suffix(".snippets").touch()

    @classmethod
    def load(cls, path: Path, inputs: Sequence[str], threads: int) -> Runner:
        import openvino

        core = openvino.Core()
        settings = cls.settings | {"INFERENCE_NUM_THREADS": threads}
        if not path.with_suffix(".snippets").exists():
            settings |= {"SNIPPETS_MODE": "DISABLE"}
        model = core.compile_model(core.read_model(path), "CPU", settings)
        request = model.create_infer_request()
        places = [next(place for place, name in enumerate(inputs) if name in port.names) for port in model.inputs]

        def run(tensors: Sequence[Tensor]) -> list[Tensor]:
            feed = [tensors[place].contiguous().numpy() for place in places]
            found = request.infer(dict(enumerate(feed)), share_inputs=True)
            return [torch.from_numpy(value) for value in found.to_tuple()]

        return run


def plain_norms(model: "openvino.Model") -> None:
    """Write group normalisations as what they consist of. Where one is added to, or multiplied by, another elementwise
    result, OpenVINO 2026.4's pass that makes snippets reads a null pointer."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "GroupNormalization":
            continue
        x, scale, bias = (port.get_source_output() for port in node.inputs())
        said, shape = node.get_attributes(), list(x.get_shape())
        rows = opset13.reshape(x, [shape[0], said["num_groups"], -1], False)
        rows = opset13.mvn(rows, [2], True, said["epsilon"], "inside_sqrt")
        channels = [1, shape[1], *[1] * (len(shape) - 2)]
        scale, bias = (opset13.reshape(value, channels, False) for value in (scale, bias))
        normal = opset13.add(opset13.multiply(opset13.reshape(rows, shape, False), scale), bias)
        node.output(0).replace(normal.output(0))


class OpenVinoInt8(OpenVino):
    """With weights of eight bits, see `int8`: a quarter of the file and of the memory, and other actions."""

    name, exact = "openvino_int8", False
    # Or the other numbers of a product would be rounded to eight bits as well.
    settings: ClassVar = OpenVino.settings | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}

    @classmethod
    def copied(cls, policy: Policy) -> Policy:
        return rounded(policy)

    @classmethod
    def finish(cls, model: "openvino.Model") -> None:
        compress(model)


class OnnxRuntime(Backend):
    name, needs, ending = "onnxruntime", ("onnx", "onnxscript", "onnxruntime"), ".onnx"

    @classmethod
    def version(cls) -> str:
        import onnxruntime

        return onnxruntime.__version__

    @classmethod
    def write(cls, graph: Graph, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        with _quiet():
            torch.onnx.export(graph.program, (), dynamo=True, input_names=list(inputs), output_names=list(outputs),
                              verbose=False).save(str(path))

    @classmethod
    def load(cls, path: Path, inputs: Sequence[str], threads: int) -> Runner:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        places = {each.name: list(inputs).index(each.name) for each in session.get_inputs()}

        def run(tensors: Sequence[Tensor]) -> list[Tensor]:
            feed = {name: tensors[place].contiguous().numpy() for name, place in places.items()}
            return [torch.from_numpy(value) for value in session.run(None, feed)]

        return run


class TensorRt(OnnxRuntime):
    """The ONNX file, checked with ONNX Runtime, and what TensorRT's own program builds of it for this machine's GPU,
    where that program is."""

    name = "tensorrt"

    @classmethod
    def write(cls, graph: Graph, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().write(graph, path, inputs, outputs)
        if shutil.which("trtexec") is None:
            return
        done = subprocess.run(["trtexec", f"--onnx={path}", f"--saveEngine={path.with_suffix('.plan')}"],
                              capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
            raise RuntimeError(f"trtexec: {said[-1]}")

    @classmethod
    def left(cls) -> str:
        if shutil.which("trtexec"):
            return ""
        return ("no engine was built, TensorRT's trtexec is not on the PATH: on the machine with the GPU run `trtexec "
                "--onnx=encode.onnx --saveEngine=encode.plan`, and the same for act")


class TorchProgram(Backend):
    """torch.export's own file, which libtorch's AOTInductor compiles; here it is only run to check it."""

    name, ending = "pt2", ".pt2"

    @classmethod
    def write(cls, graph: Graph, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        torch.export.save(graph.program, path)

    @classmethod
    def load(cls, path: Path, inputs: Sequence[str], threads: int) -> Runner:
        module = torch.export.load(path).module()
        return lambda tensors: list(module(*tensors))


ENGINES: dict[str, type[Backend]] = {backend.name: backend for backend in (OpenVino, OpenVinoInt8, OnnxRuntime)}
NAMES = ("auto", "torch", *ENGINES)


def find(name: str, device: torch.device, dtype: torch.dtype, compiled: bool, exact: bool) -> type[Backend] | None:
    """The engine for a policy there, None for torch itself. `auto` is what VLA_ROS_ENGINE in the environment says, and
    without that OpenVINO on an x86 CPU where it can be had.

    Raises InputError for one that is not available.
    """
    what = "engine"
    if name == "auto" and (said := os.environ.get("VLA_ROS_ENGINE")):
        what, name = "VLA_ROS_ENGINE", said
    if name not in NAMES:
        raise InputError(f"{what} {shown(name)}, expected {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    obstacles = [words for there, words in (
        (device.type != "cpu", f"it runs on the CPU, the policy on {device}; expected device cpu"),
        (dtype != torch.float32, f"it works in float32, the weights are {str(dtype).removeprefix('torch.')}; expected "
                                 "dtype float32"),
        (compiled, "compile is torch's own; expected compile: false"),
        (exact, "rtc_exact needs gradients, which it does not have; expected rtc_exact: false"),
    ) if there]  # fmt: skip
    if name == "auto":
        there = platform.machine() in ("x86_64", "AMD64") and not obstacles and not OpenVino.missing()
        return OpenVino if there else None
    if name == "torch":
        return None
    if obstacles:
        raise InputError(f"{what} {name}: {obstacles[0]}, or {what} torch")
    ENGINES[name].require()
    return ENGINES[name]


@contextmanager
def _quiet():
    """Silence the converters' warnings about their own calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
