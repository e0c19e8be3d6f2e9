"""The parameters of policy_node."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vla_ros.nodes.parameters import NodeParameters, parameter

if TYPE_CHECKING:
    from vla_ros.runtime.session import SessionOptions


@dataclass(frozen=True)
class PolicyParameters(NodeParameters):
    """The settings of a `PolicySession` (see `runtime.session.SessionOptions`), and how fresh its inputs must be."""

    policy: str = parameter("", "checkpoint folder, a policy file, or ws://HOST:PORT of a server")
    tokenizer: str = parameter("", "folder of the tokenizer's files; empty: the checkpoint's own")
    device: str = parameter("auto", "auto, cpu, cuda or cuda:N; auto takes the GPU if there is one")
    dtype: str = parameter(
        "auto",
        "numbers of the network; auto is bfloat16 on a GPU, float32 on a CPU",
        choices=("auto", "float32", "bfloat16"),
    )
    engine: str = parameter(
        "auto",
        "what runs the network on a CPU; auto is OpenVINO where it is installed and gives torch's numbers",
        choices=("auto", "torch", "openvino", "openvino_int8", "onnxruntime"),
    )
    num_steps: int = parameter(0, "denoising steps; 0: the checkpoint's own number", low=0, high=1000)
    graph: bool = parameter(True, "record CUDA graphs (on a GPU)")
    compile: bool = parameter(False, "fuse operations with torch.compile; configuring then takes minutes")
    threads: int = parameter(0, "threads of the network on the CPU; 0: torch's own number", low=0, high=256)
    seed: int = parameter(0, "seed of the noise that actions are made from", low=0)
    max_rate: float = parameter(
        0.0, "highest rate of inference; 0: one for each new set of images", unit="Hz", low=0.0, high=1000.0
    )
    max_age: float = parameter(
        0.5, "an image or joint state older than this is refused", unit="s", low=0.001, high=60.0
    )
    rtc: bool = parameter(
        False, "real-time chunking: condition each chunk on the tail of the one before; for an executor in mode rtc"
    )
    rtc_exact: bool = parameter(False, "guide with the vector-Jacobian product (slower) instead of its stop-gradient")
    rtc_max_guidance: float = parameter(
        0.0, "bound of the guidance weight; 0: the checkpoint's own, or 5 if it has none", low=0.0, high=100.0
    )
    roll_state: bool = parameter(
        False, "show the policy the state that the robot will have when the chunk is there, by the one it executes"
    )

    def session_options(self) -> "SessionOptions":
        from vla_ros.runtime.session import SessionOptions  # imports torch, which is not needed for the names alone

        return SessionOptions(
            num_steps=self.num_steps or None,
            graph=self.graph,
            compile=self.compile,
            guided=self.rtc,
            exact_guidance=self.rtc_exact,
            max_guidance=self.rtc_max_guidance or None,
            roll_state=self.roll_state,
            seed=self.seed,
            engine=self.engine,
        )
