"""Whatever is wrong in a file from outside: it is read, or refused in one short line, within memory."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import families
import groot_folders
import lerobot_checkpoints
import numpy as np
import openvla_folders
import pi0_folders
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import real_families
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from safetensors.torch import load
from training_data import write_dataset

from vla_ros.bags.definitions import standard_store
from vla_ros.bags.reader import Bag
from vla_ros.bags.repair import repair
from vla_ros.bags.summary import summarise
from vla_ros.bags.writer import BagWriter
from vla_ros.control.kinematics import Kinematics
from vla_ros.control.urdf import load_urdf
from vla_ros.core.errors import LONGEST_TEXT, InputError
from vla_ros.core.observation import Sample
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import JOINT_STATES
from vla_ros.datasets.lerobot import Dataset
from vla_ros.messages.observation import ObservationBuilder
from vla_ros.nn.meta import without_numbers
from vla_ros.nodes.parameter_files import check_sections
from vla_ros.policies import registry
from vla_ros.training.config import TrainConfig

ROBOT = Path("config/robots/so101.yaml")
MORE_MEMORY = 3 << 30  # bytes that a reader may ask for
EXAMPLES = int(os.environ.get("VLA_HOSTILE_EXAMPLES", 8))  # of each kind; a few hundred find more, in half an hour


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


VALUES = (
    None, True, 0, -1, 1, 3, 10**9, 2**63, 10**25, 0.5, -1e308, float("nan"), float("inf"), "", "x", "7", "../x",
    "/dev/zero", "a\0b", "{0.__class__}", "{episode_index:999999999}", "\x1b[2J\n[/red]", "9" * 5000, [], [0], {},
    ["x"] * 3, ["x"] * 5000, [{}], {"x": 1}, {"type": "STATE", "shape": [0]}, nested(60), nested(300),
)  # fmt: skip

URDF = """<?xml version="1.0" encoding="utf-8"?>
<robot name="r">
  <link name="base"/> <link name="arm"/> <link name="finger"/>
  <joint name="a" type="revolute">
    <parent link="base"/> <child link="arm"/> <origin xyz="0 0 0.1" rpy="0 1 0"/> <axis xyz="0 0 1"/>
    <limit lower="-1" upper="1" velocity="2"/> <safety_controller soft_lower_limit="-0.9" soft_upper_limit="0.9"/>
  </joint>
  <joint name="b" type="prismatic">
    <parent link="arm"/> <child link="finger"/> <axis xyz="1 0 0"/> <mimic joint="a" multiplier="0.1" offset="0"/>
  </joint>
</robot>"""


def policy_file(joints: Sequence[str]) -> dict:
    """One that says everything that it can."""
    rows = [{"joint": name, "scale": 2.0, "offset": 0.1, "mode": "absolute"} for name in joints]
    rows[-1]["linkage"] = {"arm_length": 0.036, "horn_radius": 0.022}
    return {
        "checkpoint": "theirs", "tokenizer": "theirs/vlm", "step_dt": 0.1, "cameras": {"front": "front", "wrist": None},
        "state": rows, "actions": [*rows[:2], {"joint": None}, *rows[3:]], "hold": [joints[2]], "joints": [*joints],
        "overrides": {"num_steps": 2},
    }  # fmt: skip


@dataclass
class Subject:
    """What is spoilt: one of `files` at a time, in place. `read` does all that a command would with it."""

    path: Path
    read: Callable[[Path], Any]
    files: list[Path]


def subject(kind: str, folder: Path) -> Subject:
    robot = RobotSpec.load(ROBOT)

    def policy(path: Path) -> None:
        # These folders do not say which cameras and joints they are of: no robot can be given.
        nameless = layout in ("openpi", "transformers", "oft", "nvidia")
        registry.describe(path)
        loaded = registry.load(path, robot=None if nameless else robot, tokenizer=tokenizer)
        processor, policy = loaded.processor, loaded.policy
        long = processor.horizon * policy.config.action_dim > 10_000 or getattr(policy.config, "num_steps", 1) > 100
        if long or processor.state.missing:
            return
        rng = np.random.default_rng(0)
        shape = (processor.n_obs_steps, 48, 64 if layout.startswith("lerobot") else 48, 3)
        images = {name: rng.integers(0, 256, shape, np.uint8) for name in processor.cameras}
        steps = len(processor.steps()[JOINT_STATES])
        one = Sample(images, rng.normal(0, 0.1, (steps, len(processor.joints))), "touch the red cube")
        processor.outputs(policy.predict(processor.inputs([one])), [one])

    def urdf(path: Path) -> None:
        load_urdf(path)
        Kinematics(path).poses({"a": np.zeros(1)})

    def build(path: Path) -> None:
        config = TrainConfig.load(path, dataset="d", output="o")
        with without_numbers():
            registry.build(config.family or "act", config.policy, families.data())

    def dataset(path: Path) -> None:
        found = Dataset(path)
        for camera in found.camera_names:
            found.episode_frames(found.episodes[0], camera)

    def bag(path: Path) -> None:
        try:
            repair(path, folder / "repaired")
        finally:
            shutil.rmtree(folder / "repaired", ignore_errors=True)
        with Bag(path) as opened:
            for record in opened.records():
                opened.decode(record)
        summarise(path)

    path = folder / kind
    layout, _, name = kind.partition("-")
    tokenizer = folder / "tokenizer.model" if layout in ("openpi", "transformers") else None
    if tokenizer is not None:
        pi0_folders.write_sentencepiece(tokenizer)
    if kind in ("robot", "policy file", "urdf", "parameters") or layout == "training":
        path = folder / ("robot.urdf" if kind == "urdf" else f"{layout}.yaml")
        source = {"robot": ROBOT, "training": Path(f"config/train/{name}_tiny.yaml"),
                  "parameters": Path("config/executor.yaml")}.get(layout)  # fmt: skip
        if source is not None:
            path.write_bytes(source.read_bytes())
        elif kind == "urdf":
            path.write_text(URDF)
        else:
            real_families.make(folder / "theirs", "smolvla")
            path.write_text(yaml.safe_dump(policy_file(robot.joint_names)))
        read = {
            "robot": lambda file: ObservationBuilder(RobotSpec.load(file)), "training": build, "urdf": urdf,
            "policy file": policy, "parameters": lambda file: check_sections(file, ["/executor_node"]),
        }[layout]  # fmt: skip
        return Subject(path, read, [path])
    if layout == "own":
        registry.save(path, families.fresh(name))
    elif layout == "lerobot":
        real_families.make(path, name)
        (path / "train_config.json").write_text(json.dumps({"env": {"fps": 10}, "steps": 3}))
    elif layout == "lerobot_old" and name == "pi0":
        pi0_folders.write_legacy_lerobot(path, pi0_folders.TINY, 6, ("front", "wrist"))
        pi0_folders.write_sentencepiece(path / "tokenizer.model")
    elif layout == "lerobot_old":
        lerobot_checkpoints.make(path, name, old=True)
    elif layout == "oft":
        openvla_folders.write_oft(path, 7, 8, film=True)
    elif layout == "nvidia":
        groot_folders.make_nvidia(path, name, "so100" if name == "n1.5" else "new_embodiment")
    elif layout == "openpi":
        pi0_folders.write_openpi(path, pi0_folders.TINY, False, 6, shards=2)
    elif layout == "transformers":
        pi0_folders.write_transformers(path, pi0_folders.TINY)
    elif layout == "dataset":
        write_dataset(path, episodes=2)
    elif layout == "bag":
        writer, store = BagWriter(path), standard_store()
        writer.add_topic("/said", "std_msgs/msg/String")
        for k in range(1, 20):
            text = store.types["std_msgs/msg/String"](data=f"hello {k}")
            writer.write("/said", 10**9 * k, bytes(store.serialize_cdr(text, "std_msgs/msg/String")))
        writer.close({"vla_ros.lost./said": "2"})
    read = {"dataset": dataset, "bag": bag}.get(layout, policy)
    read(path)  # it is right as it is
    return Subject(path, read, sorted(file for file in path.rglob("*") if file.is_file()))


TRAINED = sorted(file.stem.removesuffix("_tiny") for file in Path("config/train").glob("*_tiny.yaml"))
OWN = (name for name in families.FAMILIES if name not in families.BUILT)  # another kind of a family is read as it is
KINDS = (
    "robot", "policy file", "urdf", "parameters", "dataset", "bag", "openpi", "transformers", "oft", "nvidia-n1.5",
    "nvidia-n1.7",
    *(f"own-{name}" for name in OWN), *(f"lerobot-{name}" for name in real_families.FAMILIES),
    *(f"lerobot_old-{name}" for name in ("pi0", "act")), *(f"training-{name}" for name in TRAINED),
)  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def spoilt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    made = subject(request.param, tmp_path_factory.mktemp("hostile"))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, hard))
    yield made
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths of all values inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, content in list(inner)[:40]:
        yield (*path, key)
        yield from places(content, (*path, key))


def change(data: Any, draw: Callable[[Any], Any]) -> None:
    """Replace, remove or rename one value of a structure."""
    found = list(places(data))
    assume(found)
    *path, key = draw(st.sampled_from(found))
    for step in path:
        data = data[step]
    what = draw(st.integers(0, 9))
    if what == 0:
        del data[key]
    elif what == 1 and isinstance(data, dict):
        data[draw(st.sampled_from(["x", "../x", "family", "type", "a" * 3000]))] = data.pop(key)
    else:
        data[key] = deepcopy(draw(st.sampled_from(VALUES)))


def change_tensor(tensors: dict[str, np.ndarray], name: str, draw: Callable[[Any], Any]) -> None:
    """Remove or rename one of the tensors, or give it other numbers, another type or another shape."""
    tensor = tensors.pop(name)
    what = draw(st.integers(0, 6))
    if what == 0:
        return
    if what == 1:
        name = draw(st.sampled_from(["x", f"{name}.x", name.rpartition(".")[0] or "x", "." * 3, "a" * 600]))
    elif what == 2:
        tensor = np.full_like(tensor, draw(st.sampled_from([np.nan, np.inf, -np.inf, 0, -1, 3e38])))
    elif what == 3:
        tensor = tensor.astype(draw(st.sampled_from([np.bool_, np.int8, np.int64, np.float16, np.float64])))
    else:
        shapes = [(0,), (1,), (), (2, 3), (1, *tensor.shape), tensor.shape[1:], (*tensor.shape, 1), tensor.shape[::-1]]
        tensor = np.resize(tensor, draw(st.sampled_from(shapes)))
    tensors[name] = np.ascontiguousarray(tensor)


def change_element(root: ElementTree.Element, draw: Callable[[Any], Any]) -> None:
    """Remove, double or rename one of the elements below, or give it another attribute."""
    parent = draw(st.sampled_from([element for element in root.iter() if len(element)]))
    child, what = draw(st.sampled_from(list(parent))), draw(st.integers(0, 6))
    if what == 0:
        parent.remove(child)
    elif what == 1:
        parent.append(child)
    elif what == 2:
        child.tag = draw(st.sampled_from(["robot", "link", "joint", "x"]))
    else:
        names = [*child.attrib, "name", "type", "xyz"]
        said = str(draw(st.sampled_from([*VALUES, "0 0 0", "1e308 1e308 1e308", "fixed", "base", "finger"])))
        child.set(draw(st.sampled_from(names)), "".join(c for c in said if c.isprintable()))


def rewrite(file: Path, draw: Callable[[Any], Any]) -> bytes:
    """Other contents of a file: its structure changed where it has one that is known, else its bytes."""
    data, kind = file.read_bytes(), file.suffix
    if kind == ".safetensors" and draw(st.booleans()):
        tensors = {name: tensor.float().numpy() for name, tensor in load(data).items()}  # NumPy has no bfloat16
        name = draw(st.sampled_from(sorted(tensors)))
        change_tensor(tensors, name, draw)
        return save(tensors)
    if kind == ".urdf" and draw(st.integers(0, 3)):
        root = ElementTree.fromstring(data)
        change_element(root, draw)
        return ElementTree.tostring(root)
    if kind not in (".json", ".yaml", ".jsonl", ".parquet") or draw(st.integers(0, 7)) == 0:
        spoilt = bytearray(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)
        for _ in range(draw(st.integers(0, 4)) if spoilt else 0):
            spoilt[draw(st.integers(0, min(len(spoilt), 4000) - 1))] = draw(st.integers(0, 255))
        return bytes(spoilt)
    if kind == ".parquet":
        rows = pq.read_table(file).to_pylist()
        change(rows, draw)
        try:
            table = pa.Table.from_pylist(rows)
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
        except (pa.ArrowException, AttributeError, OverflowError, ValueError, TypeError):
            assume(False)
        return sink.getvalue().to_pybytes()
    if kind == ".yaml":
        content = yaml.safe_load(data)
        change(content, draw)
        return yaml.dump(content, Dumper=yaml.CSafeDumper).encode()
    content = [json.loads(line) for line in data.splitlines()] if kind == ".jsonl" else json.loads(data)
    for _ in range(draw(st.integers(1, 2))):
        change(content, draw)
    return ("\n".join(map(json.dumps, content)) if kind == ".jsonl" else json.dumps(content)).encode()


# Without the search for a smaller example: loading takes too long, and what was drawn is printed.
@settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_spoilt_file_is_read_or_refused_in_one_line(spoilt, data):
    file = data.draw(st.sampled_from(spoilt.files))
    right = file.read_bytes()
    try:
        file.write_bytes(rewrite(file, data.draw))
        spoilt.read(spoilt.path)
    except InputError as error:
        assert 0 < len(str(error)) <= LONGEST_TEXT + 10 and len(str(error).splitlines()) == 1
    finally:
        file.write_bytes(right)
