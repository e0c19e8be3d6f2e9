"""Access rights on the graph as a policy file of SROS2: each enclave has the rights that its node needs, and no
others."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vla_ros.bags.streams import (
    CHUNK,
    CLOCK,
    E_STOP,
    EXECUTOR_STATUS,
    INSTRUCTION,
    LATCHED,
    OUTCOME,
    POLICY_STATUS,
    graph_streams,
)
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.process import check_namespace
from vla_ros.nodes.security import ENCLAVES

TASK = "run_instruction"
TAKE_OVER, TAKEOVER = "executor_node/take_over", "executor_node/takeover/joint_command"
DESCRIPTION = "robot_description"
FRAMES = (*LATCHED, "/tf")
NODES = ("policy_node", "executor_node", "task_node", "recorder_node", "sim_node", "expert_node", "marker_node",
         "console_node")
# A leading ~ stands for the node's own name.
PARAMETERS = tuple(
    f"~/{name}" for name in ("describe_parameters", "get_parameter_types", "get_parameters", "get_type_description",
                             "list_parameters", "set_parameters", "set_parameters_atomically")
)  # fmt: skip
LIFECYCLE = tuple(
    f"~/{name}" for name in ("change_state", "get_available_states", "get_available_transitions", "get_state",
                             "get_transition_graph")
)  # fmt: skip
_RULES = (
    ("topic", "publish"), ("topic", "subscribe"), ("service", "request"), ("service", "reply"), ("action", "call"),
    ("action", "execute"),
)  # fmt: skip
_COMMAND_LINE = "_ros2cli_*"  # the nodes of the `ros2` command


@dataclass(frozen=True)
class Enclave:
    """What the processes of one enclave may do; names are relative to the namespace, or absolute.

    Attributes:
        nodes: names of its nodes.
        managed: its nodes have a lifecycle.
    """

    purpose: str
    publish: Iterable[str] = ()
    subscribe: Iterable[str] = ()
    request: Iterable[str] = ()
    reply: Iterable[str] = ()
    call: Iterable[str] = ()
    execute: Iterable[str] = ()
    nodes: tuple[str, ...] = ()
    managed: bool = True


def enclaves(robot: RobotSpec) -> dict[str, Enclave]:
    """Name -> enclave, for the graph around a robot."""
    commands = [group.topic for group in robot.groups]
    claims = [f"{topic}/claim" for topic in commands]
    measured = [stream.topic for stream in robot.measured_streams]
    actions = [group.action for group in robot.groups if group.action]
    sensors = [stream.topic for stream in robot.all_streams.values() if not stream.is_command]
    told = [*(stream.topic for stream in graph_streams()), *LATCHED]
    cameras = [stream.topic for stream in (*robot.cameras, *(one for one in robot.streams if one.dtype == "uint16"))]
    drawn = [f"{topic.rpartition('/')[0]}/camera_info".lstrip("/") for topic in cameras]
    drawn += [f"{camera.topic}/compressed" for camera in robot.cameras if not camera.compressed]
    everything = [*sensors, *commands, *told]
    made = {
        "policy_node": Enclave(
            "the only one that may publish chunks",
            publish=[CHUNK, POLICY_STATUS, "/diagnostics"],
            subscribe=[*sensors, INSTRUCTION, EXECUTOR_STATUS],
        ),
        "executor_node": Enclave(
            "the only one that may command the joints",
            publish=[*commands, *claims, EXECUTOR_STATUS, "/diagnostics"],
            subscribe=[*claims, *measured, CHUNK, INSTRUCTION, E_STOP, POLICY_STATUS, DESCRIPTION, TAKEOVER],
            reply=["~/e_stop", "~/reset_e_stop", "~/take_over"],
            call=actions,
        ),
        "task_node": Enclave(
            "gives the instructions of tasks",
            publish=[INSTRUCTION, OUTCOME],
            subscribe=[INSTRUCTION, POLICY_STATUS, EXECUTOR_STATUS],
            execute=[TASK],
        ),
        "recorder_node": Enclave("receives everything, publishes nothing", subscribe=everything, reply=["~/keep"]),
        "marker_node": Enclave(
            "draws chunk and command for RViz and Foxglove",
            publish=["~/markers", *(["~/base_path"] if robot.path_axes else [])],
            subscribe=[CHUNK, EXECUTOR_STATUS, DESCRIPTION],
        ),
        "console_node": Enclave(
            "the operator's page: hears everything; instructs, stops, resets the e-stop, calls for takeovers, records",
            publish=[INSTRUCTION, OUTCOME, E_STOP],
            subscribe=[*sensors, *commands, CHUNK, INSTRUCTION, POLICY_STATUS, EXECUTOR_STATUS],
            request=[
                "executor_node/reset_e_stop", "executor_node/get_parameters", TAKE_OVER, "recorder_node/set_parameters",
                "recorder_node/get_state",
                *(f"{node}/change_state" for node in ("policy_node", "executor_node", "task_node", "recorder_node")),
            ],
            call=[TASK],
        ),
        "replay_node": Enclave(
            "plays a bag: sensors and joint states, but no instructions and commands",
            publish=[*sensors, CLOCK],
            managed=False,
        ),
        "driver": Enclave(
            "the robot's own nodes; replace `driver` by their names, or give each an enclave",
            publish=[*sensors, *FRAMES],
            subscribe=[*commands, "/parameter_events"],
            execute=actions,
            managed=False,
        ),
        "operator": Enclave(
            "vla-ros and ros2: starts, configures and stops nodes, instructs, stops; does not reset the e-stop",
            publish=[INSTRUCTION, OUTCOME, E_STOP],
            subscribe=[*everything, "/diagnostics", "/rosout", "sim_node/task", "expert_node/following"],
            request=[
                *(f"{node}{service[1:]}" for node in NODES for service in PARAMETERS + LIFECYCLE),
                "executor_node/e_stop", "recorder_node/keep", "sim_node/reset", "sim_node/run",
            ],
            call=[TASK],
            nodes=("vla_ros_cli_*", "vla_ros_task", _COMMAND_LINE),
            managed=False,
        ),
        "viewer": Enclave(
            "vla-ros top and rerun, RViz, Foxglove: receives everything, publishes nothing",
            subscribe=[*everything, "/diagnostics", "marker_node/markers", *FRAMES],
            nodes=("vla_ros_cli_*", _COMMAND_LINE, "rviz", "rviz2", "foxglove_bridge"),
            managed=False,
        ),
        "e_stop": Enclave(
            "an e-stop button", publish=[E_STOP], request=["executor_node/e_stop"], nodes=("e_stop", _COMMAND_LINE),
            managed=False,
        ),
        "reset_e_stop": Enclave(
            "resets the e-stop, so that the robot may move again", subscribe=[EXECUTOR_STATUS],
            request=["executor_node/reset_e_stop"], nodes=("reset_e_stop", "vla_ros_cli_*", _COMMAND_LINE),
            managed=False,
        ),
        "takeover": Enclave(
            "a leader arm or another source that may take over from the policy; put its nodes' names in",
            publish=[TAKEOVER], subscribe=[EXECUTOR_STATUS, DESCRIPTION, "joy"], request=[TAKE_OVER],
            nodes=("takeover", "vla_ros_cli_*", _COMMAND_LINE), managed=False,
        ),
        "sim_node": Enclave(
            "the simulated robot: not in the keystore of a real one",
            publish=[
                *sensors, *drawn, *FRAMES, CLOCK,
                *(f"~/{name}" for name in ("cubes", "success", "task")),
            ],
            subscribe=[*commands, INSTRUCTION, EXECUTOR_STATUS],
            reply=["~/reset", "~/run"],
        ),
        "expert_node": Enclave(
            "demonstrates in the simulator, and commands the joints: not in the keystore of a real robot",
            publish=[*commands, TAKEOVER, "~/following"],
            subscribe=[robot.joint_state_topics[0], INSTRUCTION, EXECUTOR_STATUS, "sim_node/cubes"],
            request=[TAKE_OVER],
        ),
    }  # fmt: skip
    return {name: _with_own(name, enclave) for name, enclave in made.items()}


def _with_own(name: str, enclave: Enclave) -> Enclave:
    """With the rights that every node has, and every node with a lifecycle."""
    own, services = (["~/transition_event"], LIFECYCLE) if enclave.managed else ([], ())
    return replace(
        enclave,
        nodes=enclave.nodes or (name,),
        publish=[*enclave.publish, "/rosout", "/parameter_events", *own],
        subscribe=[*enclave.subscribe, *(() if CLOCK in enclave.publish else (CLOCK,))],
        reply=[*enclave.reply, *PARAMETERS, *services],
    )


def policy(robot: RobotSpec, namespace: str = "") -> str:
    """The policy file, XML, for a robot whose nodes are in `namespace`. Raises InputError for a bad namespace."""
    check_namespace(namespace)
    root = ET.Element("policy", version="0.2.0")
    listed = ET.SubElement(root, "enclaves")
    for name, enclave in enclaves(robot).items():
        element = ET.SubElement(listed, "enclave", path=f"{ENCLAVES}/{name}")
        element.append(ET.Comment(f" {enclave.purpose} "))
        profiles = ET.SubElement(element, "profiles")
        for node in enclave.nodes:
            profile = ET.SubElement(profiles, "profile", ns=f"/{namespace.strip('/')}", node=node)
            for kind, rule in _RULES:
                names = sorted(set(getattr(enclave, rule)))
                if names:
                    rules = ET.SubElement(profile, f"{kind}s", {rule: "ALLOW"})
                    for entry in names:
                        ET.SubElement(rules, kind).text = entry
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'
