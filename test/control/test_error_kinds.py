"""Each error ends with the section of docs/troubleshooting.md that is about it."""

import re
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import vla_ros
from vla_ros.control.error_kinds import _MODULES, FILES, KINDS, OPTIONS, kind_of, kind_of_module
from vla_ros.control.remedies import PAGE, with_section
from vla_ros.core.errors import InputError
from vla_ros.core.files import read_bytes
from vla_ros.core.robot import RobotSpec

ROOT = Path(vla_ros.__file__).parent


def raised(call) -> Exception:
    with pytest.raises((InputError, OSError)) as error:
        call()
    return error.value


def test_what_a_module_raises_has_a_kind():
    missing = []
    for path in ROOT.rglob("*.py"):
        module = ".".join(("vla_ros", *path.relative_to(ROOT).with_suffix("").parts))
        raises = re.search(r"raise (InputError|NotYet|GraphError|TrainingError)\(", path.read_text(encoding="utf-8"))
        if raises and not kind_of_module(module) and not module.startswith("vla_ros.cli."):
            missing.append(module)
    assert not missing
    assert {*_MODULES.values()} | {OPTIONS} == {*KINDS}
    for name in _MODULES:
        place = ROOT / name.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), name


def test_an_error_is_of_the_kind_of_who_raised_it_or_had_a_file_read(tmp_path: Path):
    (tmp_path / "robot.yaml").write_text("name: 3")
    assert kind_of(raised(lambda: RobotSpec.load(tmp_path / "robot.yaml"))) == "Robot files"
    assert kind_of(raised(lambda: RobotSpec.load(tmp_path / "none.yaml"))) == "Robot files"
    assert kind_of(raised(lambda: read_bytes(tmp_path / "none", "thing", 10))) == FILES
    assert kind_of(raised((tmp_path / "none").read_text)) == FILES
    assert kind_of(InputError("raised by a command itself")) == OPTIONS


@pytest.mark.parametrize(("module", "kind"), [
    ("vla_ros.nodes.sim_node", "The simulated robot"), ("vla_ros.nodes.executor_node", "Nodes"),
    ("vla_ros.policies.pi0.config", "Checkpoints"), ("vla_ros.cli.say", OPTIONS), ("somebody.elses", OPTIONS),
])  # fmt: skip
def test_a_module_that_runs_as_the_program_is_known_by_its_spec(module: str, kind: str):
    own = {"__name__": "__main__", "__spec__": ModuleSpec(module, None), "InputError": InputError}
    exec("def fail():\n    raise InputError('x')", own)
    assert kind_of(raised(own["fail"])) == kind


def test_the_words_of_an_error_decide_before_its_kind_and_a_section_is_named_once():
    said = with_section(InputError("/joint_states: nobody publishes it"))
    assert said == f"/joint_states: nobody publishes it ({PAGE}#nobody-publishes)"
    assert with_section(InputError(said)) == said
    assert with_section(InputError("joint a: 0.9 s old, limit 0.5 s")).endswith(f"({PAGE}#stale-joint-states)")
    assert with_section(OSError(2, "no"), "f: no") == f"f: no ({PAGE}#files)"
