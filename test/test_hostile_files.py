"""Whatever is wrong in a file from outside: it is read, or refused in one short line, within memory."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import families
import groot_folders
import pi0_folders
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import real_families
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from training_data import write_dataset

from vla_ros.bags.definitions import standard_store
from vla_ros.bags.reader import Bag
from vla_ros.bags.repair import repair
from vla_ros.bags.summary import summarise
from vla_ros.bags.writer import BagWriter
from vla_ros.control.urdf import load_urdf
from vla_ros.core.errors import LONGEST_TEXT, InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies import registry
from vla_ros.training.config import TrainConfig

ROBOT = Path("config/robots/so101.yaml")
MORE_MEMORY = 3 << 30  # bytes that a reader may ask for


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


@dataclass
class Subject:
    """What is spoilt: one of `files` at a time, in place. `read` does all that a command would with it."""

    path: Path
    read: Callable[[Path], Any]
    files: list[Path]


def subject(kind: str, folder: Path) -> Subject:
    robot = RobotSpec.load(ROBOT)

    def policy(path: Path) -> None:
        # These folders do not say which cameras and joints of the robot they are of: no robot can be given.
        registry.load(path, robot=None if layout in ("openpi", "transformers", "nvidia") else robot)

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
    if kind in ("robot", "policy file", "training", "urdf"):
        path = folder / f"{layout}.yaml"
        source = {"robot": ROBOT, "policy file": Path("config/policies/so101_lerobot.yaml"),
                  "training": Path("config/train/smolvla_tiny.yaml")}.get(kind)  # fmt: skip
        if source is not None:
            path.write_bytes(source.read_bytes())
        else:
            limit = '<limit lower="-1" upper="1" velocity="2"/>'
            path.write_text(f'<robot name="r"><joint name="a" type="revolute">{limit}</joint></robot>')
        read = {"robot": RobotSpec.load, "policy file": lambda file: registry.resolve(file, registry.LoadOptions()),
                "training": lambda file: TrainConfig.load(file, dataset="d", output="o"), "urdf": load_urdf}[kind]
        return Subject(path, read, [path])
    if layout == "own":
        registry.save(path, families.fresh(name))
    elif layout == "lerobot":
        real_families.make(path, name)
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


KINDS = (
    "robot", "policy file", "training", "urdf", "dataset", "bag", "openpi", "transformers",
    "nvidia-n1.5", "nvidia-n1.7",
    *(f"own-{name}" for name in families.FAMILIES), *(f"lerobot-{name}" for name in real_families.FAMILIES),
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
        data[key] = draw(st.sampled_from(VALUES))


def rewrite(file: Path, draw: Callable[[Any], Any]) -> bytes:
    """Other contents of a file: its structure changed where it has one that is known, else its bytes."""
    data, kind = file.read_bytes(), file.suffix
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


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_spoilt_file_is_read_or_refused_in_one_line(spoilt, data):
    file = data.draw(st.sampled_from(spoilt.files))
    right = file.read_bytes()
    try:
        file.write_bytes(rewrite(file, data.draw))
        spoilt.read(spoilt.path)
    except InputError as error:
        assert 0 < len(str(error)) <= LONGEST_TEXT + 10
    finally:
        file.write_bytes(right)
