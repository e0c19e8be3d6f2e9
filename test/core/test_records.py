"""Mappings into dataclasses: what is taken, and that everything else is refused by its path."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
import yaml

from vla_ros.core.errors import InputError
from vla_ros.core.records import read_mapping, record, value_of
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec


@dataclass(frozen=True)
class Wheel:
    radius: float
    name: str = "wheel"
    tyre: str | None = None

    def __post_init__(self):
        if self.radius <= 0:
            raise InputError(f"radius {self.radius}, expected more than zero")


@dataclass(frozen=True)
class Cart:
    wheels: tuple[Wheel, ...]
    size: tuple[int, int] = (1, 2)
    load: float | None = None
    brake: Wheel | None = None
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    driven: bool = False


def test_what_a_file_may_say():
    cart = record(Cart, yaml.safe_load("""
        wheels: [{radius: 1}, {radius: 1e-4, name: small, tyre: null}]
        size: [3, 4]
        load: 2
        brake: {radius: 0.5}
        limits: {speed: [0, 1e3]}
        options: {anything: [goes, {here: 1}]}
        driven: true
    """))
    assert cart.wheels == (Wheel(1.0), Wheel(1e-4, "small")) and cart.size == (3, 4) and cart.load == 2.0
    assert type(cart.load) is float and cart.brake == Wheel(0.5) and cart.limits == {"speed": (0.0, 1000.0)}
    assert cart.options["anything"][1] == {"here": 1} and cart.driven
    assert record(Cart, asdict(cart)) == cart and record(Cart, cart) is cart


@dataclass(frozen=True)
class Runner:
    length: float
    width: float


@pytest.mark.parametrize(("row", "words"), [
    ({"radius": -1}, "^under: radius -1.0, expected more than zero"),
    ({"length": 1}, "^under: missing width"),
    ({"radius": 1, "spokes": 3}, r"^under\.radius: unknown field, expected some of \['length', 'width'\]"),
])  # fmt: skip
def test_one_of_two_records_is_judged_as_the_one_whose_names_it_has(row, words):
    assert value_of(Wheel | Runner, {"length": 1, "width": 2}, "under") == Runner(1.0, 2.0)
    with pytest.raises(InputError, match=words):
        value_of(Wheel | Runner, row, "under")


@pytest.mark.parametrize(("changes", "words"), [
    ({"whels": 1}, r"^cart\.whels: unknown field, expected some of \['brake', "),
    ({1: 2}, r"^cart\.1: unknown field"),
    ({"wheels": None}, r"^cart\.wheels: None, expected a list, each a mapping$"),
    ({"wheels": [{}]}, r"^cart\.wheels\[0\]: missing radius$"),
    ({"wheels": [{"radius": 1}, {"radius": 1, "spokes": 3}]}, r"^cart\.wheels\[1\]\.spokes: unknown field"),
    ({"wheels": ["one"]}, r"^cart\.wheels\[0\]: 'one', expected a mapping$"),
    ({"wheels": [{"radius": True}]}, r"^cart\.wheels\[0\]\.radius: True, expected a number$"),
    ({"wheels": [{"radius": "wide"}]}, r"radius: 'wide', expected a number$"),
    ({"wheels": [{"radius": ".nan"}]}, r"radius: '.nan', expected a number$"),
    ({"wheels": [{"radius": float("inf")}]}, r"radius: inf, expected a finite number$"),
    ({"wheels": [{"radius": "nan"}]}, r"radius: nan, expected a finite number$"),
    ({"wheels": [{"radius": 10**400}]}, r"radius: 1000.* expected a number$"),
    ({"wheels": [{"radius": 1, "name": 3}]}, r"name: 3, expected a string$"),
    ({"wheels": [{"radius": 1, "tyre": 3}]}, r"tyre: 3, expected a string or null$"),
    ({"wheels": [{"radius": -1}]}, r"^cart\.wheels\[0\]: radius -1.0, expected more than zero$"),
    ({"size": [1, 2, 3]}, r"^cart\.size: \[1, 2, 3\], expected 2 values$"),
    ({"size": [1, 2.0]}, r"^cart\.size\[1\]: 2.0, expected an integer$"),
    ({"size": "12"}, r"^cart\.size: '12', expected a list"),
    ({"load": "much"}, r"^cart\.load: 'much', expected a number or null$"),
    ({"brake": {"radius": "wide"}}, r"^cart\.brake\.radius: 'wide', expected a number$"),
    ({"brake": 3}, r"^cart\.brake: 3, expected a mapping or null$"),
    ({"limits": {"speed": [0, "x"]}}, r"^cart\.limits\.speed\[1\]: 'x', expected a number$"),
    ({"limits": {3: [0, 1]}}, r"^cart\.limits: key: 3, expected a string$"),
    ({"options": []}, r"^cart\.options: \[\], expected a mapping$"),
    ({"driven": 1}, r"^cart\.driven: 1, expected true or false$"),
])  # fmt: skip
def test_everything_else_is_refused_by_its_path(changes, words):
    with pytest.raises(InputError, match=words) as error:
        record(Cart, {"wheels": [{"radius": 1}]} | changes, "cart")
    assert "\n" not in str(error.value)


def test_at_the_top_of_a_file_there_is_no_path():
    with pytest.raises(InputError, match="^missing wheels$"):
        record(Cart, {})
    with pytest.raises(InputError, match="^load: 'x', expected a number or null$"):
        record(Cart, {"wheels": [], "load": "x"})
    with pytest.raises(InputError, match="^Cart: 3, expected a mapping$"):
        record(Cart, 3)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.yaml", None, r"^cart \S+a\.yaml: No such file or directory$"),
    ("a.yaml", b"a: [1\nb: 2", r"^cart \S+a\.yaml: not YAML: while parsing"),
    ("a.yaml", b"\xff\xfe\x00\xd8", r"^cart \S+a\.yaml: not YAML: "),
    ("a.yaml", b"day: 2020-13-45", r"^cart \S+a\.yaml: not YAML: month must be"),
    ("a.yaml", b"- 1", r"^cart \S+a\.yaml: expected a mapping at the top, got list$"),
    ("a.yaml", b"", r"^cart \S+a\.yaml: expected a mapping at the top, got NoneType$"),
    ("a.json", b'{"a": 1,}', r"^cart \S+a\.json: not JSON: "),
])
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        read_mapping(tmp_path / name, "cart")
    assert "\n" not in str(error.value)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcde", "bcdef", strict=True)
)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.yaml", BOMB + "name: *f\n", "not YAML: more than 100000 values"),
    ("a.yaml", "a: &a [*a]", "not YAML: an alias to something that contains it"),
    ("a.yaml", "a: " + "1:" * 5000 + "1", "not YAML: a number of 10001 characters, expected at most 64"),
    ("a.yaml", "a: 0x" + "f" * 50, "<integer|16069380442589902755419620923411626025222029937827928353013"),
    ("a.yaml", "[" * 5000, "not YAML: "),
    ("a.json", "[" * 200000, "not JSON: "),
    ("a.json", '{"a": ' * 300 + "1" + "}" * 300, "more than 100 nested lists and mappings"),
    ("a.json", '{"a": 1' + "0" * 40 + "}", "expected integers of at most 64 bits"),
    ("a.json", '{"a": ' + "9" * 5000 + "}", "not JSON: "),
    ("a.yaml", "a: x" + "x" * (1 << 20), "1048580 bytes, expected at most 1048576"),
], ids=lambda value: value[:20])  # the whole of a megabyte would travel between the processes of a run
def test_a_file_of_which_little_text_means_much_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words) as error:
        read_mapping(tmp_path / name, "cart")
    assert len(str(error.value)) < 1500


def test_aliases_of_a_sane_size_are_taken(tmp_path):
    (tmp_path / "a.yaml").write_text("joint: &j {velocity: 2}\nother: {<<: *j, lower: -1}\nboth: [*j, *j]\n")
    assert read_mapping(tmp_path / "a.yaml", "cart")["other"] == {"velocity": 2, "lower": -1}


def test_errors_stay_short_whatever_the_file_says():
    huge = {"wheels": [{"radius": ["x" * 10_000] * 10_000}]}
    with pytest.raises(InputError) as error:
        record(Cart, huge, "cart")
    assert len(str(error.value)) < 200
    with pytest.raises(InputError) as error:
        record(Cart, {"w" * 10_000: 1}, "cart")
    assert len(str(error.value)) < 200
    assert len(str(InputError("x" * 10_000_000))) < 5000


def test_the_robot_file_that_comes_along_and_its_faults(tmp_path):
    good = read_mapping(config_file("robots/so101.yaml"), "robot file")
    assert RobotSpec.from_dict(good) == RobotSpec.load(config_file("robots/so101.yaml"))
    joints = good["joints"]
    for changes, words in (
        ({"joints": [joints[0] | {"uper": 1}, *joints[1:]]}, r"joints\[0\]\.uper: unknown field"),
        ({"name": "../../x"}, "name '../../x', expected one for files"),
        ({"name": "a%n"}, "name 'a%n', expected one for files"),
        ({"cameras": [good["cameras"][0] | {"width": 10**9}]}, r"cameras\[0\]\.width: 1000000000, expected 1 to 8192"),
        ({"joints": []}, "joints: empty, expected at least one"),
        ({"groups": []}, "groups: empty, expected at least one"),
        ({"groups": [group | {"topic": "arm"} for group in good["groups"]]}, "command topic 'arm' is duplicated"),
        *(
            ({"groups": [good["groups"][0] | changes, good["groups"][1] | others]}, words)
            for changes, others, words in (
                ({"topic": "/a/e_stop"}, {}, "group arm: topic '/a/e_stop' is one of"),
                ({"interface": "velocity"}, {}, "group arm: interface 'velocity', expected one of"),
                ({"interface": "follow_joint_trajectory"}, {}, "group arm: interface follow_joint_trajectory without"),
                ({"action": "a/b"}, {}, "group arm: action 'a/b' with interface joint_trajectory, expected one of"),
                ({"topic": ""}, {}, "group arm: topic: none, expected the one that the controller"),
                ({"prefix": "left_"}, {}, "group arm: joints .*, expected names that begin with the prefix 'left_'"),
                ({"stamp": "soon"}, {}, "group arm: stamp 'soon' with interface joint_trajectory, expected one of"),
                ({"stamp": "now", "interface": "joint_state"}, {}, "group arm: stamp 'now' with interface joint_state"),
                ({"interface": "gripper_command", "action": "a"}, {}, r"group arm: joints .*one with"),
                ({"interface": "parallel_gripper_command", "action": "a"}, {}, r"group arm: .*one with parallel"),
                ({}, {"max_effort": 5.0}, "group gripper: max_effort 5.0, expected zero or more, and only with"),
            )
        ),
        ({"joint_prefix": ["a_", "b_"]}, r"joint_prefix \('a_', 'b_'\), expected one for each of 1 topics"),
        ({"cameras": None}, "cameras: None, expected a list"),
        ({"control_rate": "fast"}, "control_rate: 'fast', expected a number"),
        ({"control_rate": "62,5"}, "control_rate: '62,5', expected a number; decimals have a point: 62.5"),
        ({"joints": [yaml.safe_load("{name: pan, lower: -1,5, upper: 1}")]},
         r"joints\[0\]\.5: unknown field, .*; decimals have a point, and a comma begins the next field"),
        ({"tool": {"lower": yaml.safe_load("[-0,4, -0,4, 0,1]")}},
         r"tool\.lower: \[0, 4, 0, 4, 0, 1\], expected 3 values; decimals have a point, and a comma begins the next"),
        ({"groups": [good["groups"][0] | {"joints": [1]}]}, r"groups\[0\]\.joints\[0\]: 1, expected a string"),
    ):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(good | changes))
        with pytest.raises(InputError, match=rf"^robot file \S+r\.yaml: {words}"):
            RobotSpec.load(tmp_path / "r.yaml")
