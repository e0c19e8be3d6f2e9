"""The pages: links lead somewhere, tables of fields are the classes' own, blocks can be read, commands exist."""

import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from doc_blocks import LANGUAGES, ROOT, blocks, commands, lines_of, pages, prose
from doc_checks import examples, problems, problems_of_prose
from doc_commands import ENDLESS, CommandError, Page, shrunk

from vla_ros.control import remedies
from vla_ros.control.admission import Reason
from vla_ros.control.supervisor import Cause, State
from vla_ros.core.robot import RobotSpec

PAGES = pages()
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub writes them."""
    found = re.findall(r"^#+ (.*)$", _CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    broken = []
    for link in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        target, _, anchor = link.partition("#")
        if target.startswith("http"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or anchor and anchor not in anchors(file):
            broken.append(link)
    assert not broken


def test_every_page_is_in_the_index():
    listed = {(ROOT / "docs" / link).resolve() for link in _LINK.findall((ROOT / "docs/index.md").read_text())}
    assert set(PAGES) - listed == {ROOT / "docs/index.md"}


@pytest.mark.parametrize("name", ["robot_file.md", "policy_file.md"])
def test_tables_of_fields_are_the_classes_own(name: str, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from reference import rewritten

    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert page.count("| **required** |") > 3
    assert rewritten(page) == page, "run scripts/reference.py"


def test_the_page_of_remedies_is_of_all_causes_and_refusals_and_of_messages_that_exist(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from reference import rewritten

    file = ROOT / "docs" / "troubleshooting.md"
    page = file.read_text(encoding="utf-8")
    assert rewritten(page) == page, "run scripts/reference.py"
    assert {*remedies.CAUSES} == {*Cause} - {Cause.NONE} and {*remedies.REASONS} == {*Reason}
    assert {*remedies.STATES} | {State.APPROACHING, State.EXECUTING, State.HOLDING, State.STOPPED} == {*State}
    entries = [entry for kinds in remedies.PARTS.values() for kind in kinds for entry in kind.items()]
    sections = [remedies.section(key).partition("#")[2] for key, _ in entries]
    assert {*sections} <= anchors(file) and len({*sections}) == len(sections)
    code = "".join(path.read_text() for path in (ROOT / "vla_ros").rglob("*.py") if path.name != "remedies.py")
    for words in (*remedies.SAID, *(remedy.says for _, remedy in entries)):
        assert words in code, words
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", page):  # parameters and fields
        assert name in code, name


@pytest.mark.parametrize("page", ["docs/robot_file.md", "README.md"])
def test_the_robot_file_of_the_page_loads(page: str, tmp_path: Path):
    file = tmp_path / "my_arm.yaml"
    file.write_text(next(block.text for block in blocks(ROOT / page) if block.language == "yaml"))
    robot = RobotSpec.load(file)
    assert robot.joints[-1].unit == "m" and len(robot.groups) == 2
    assert any(camera.compressed for camera in robot.cameras)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Path):
    """A new block of commands needs a mark: `benchmarks/doc_blocks.py` has them."""
    wrong = []
    for block in blocks(page):
        if block.language not in LANGUAGES:
            wrong.append(f"{block.name}: {block.language!r}, expected one of {', '.join(LANGUAGES)}")
        elif (block.language == "bash") != (block.mark is not None):
            wrong.append(f"{block.name}: expected a mark above a block of bash, and above no other")
    indented = re.findall(r"^ {4,}(?:vla-ros|ros2|python|make|pip) .*", prose(page), re.MULTILINE)
    assert not wrong and not indented, "commands stand in blocks of ```bash, not in indented ones"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_pages_exist(page: Path):
    found = [f"{block.name}: {line}" for block in blocks(page) if block.language == "bash"
             for line in problems(block.text)]  # fmt: skip
    assert not found + problems_of_prose(prose(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_other_blocks_can_be_read(page: Path):
    read = {"yaml": yaml.safe_load, "toml": tomllib.loads, "python": lambda text: compile(text, page.name, "exec")}
    for block in blocks(page):
        if block.language in read:
            read[block.language](block.text)


def test_the_examples_of_the_commands_exist():
    found = {path.name: [problem for line in examples(path) for problem in problems(line.split("   ")[0])]
             for path in [*ROOT.glob("vla_ros/cli/*.py"), *ROOT.glob("launch/*.py")]}  # fmt: skip
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert sum(len(examples(path)) for path in ROOT.glob("vla_ros/cli/*.py")) > 20


def test_a_command_of_a_page_that_ends_at_once_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(ENDLESS, "false", "ready")
    page = object.__new__(Page)
    page.folder, page.environment = tmp_path, dict(os.environ)
    with pytest.raises(CommandError, match="false x: did not say 'ready'"):
        page._start("false x")


@pytest.mark.parametrize("text", [
    "vla-ros run --robot so101", "vla-ros runs", "vla-ros dataset build a -o b --sise 3 --robot so101",
    "python benchmarks/no.py", "python benchmarks/soak.py --seconds 3", "ros2 run vla_ros no_node", "frobnicate x",
    "ros2 launch vla_ros vla.launch.py robots:=so101", "python -P -m vla_ros.nodes.sim_node --ros-args -p sede:=1",
    "ros2 topic pub /outcome vla_ros/msg/Outcome '{outcomes: 1}'", "cp config/robots/no.yaml x", "make tests",
    "pip install .[trian]", "X=$(vla-ros inof so101) echo", "true && vla-ros bag shov x",
])  # fmt: skip
def test_a_wrong_command_is_found(text: str):
    assert problems(text)


def test_the_shrunk_commands_exist_too():
    lines = [line for page in PAGES for block in blocks(page) if block.run for line in lines_of(block.text)]
    made = [shrunk(line).replace(f"-C {ROOT}", "") for line in lines]
    assert len(made) > 40 and not [wrong for line in made for wrong in problems(line)]


def test_words_of_a_block():
    text = "A=1 vla-ros say 'touch it' > out \\\n && make demo   # both\n\n# nothing\nB=$(ros2 pkg prefix vla_ros)/x ls"
    expected = [["vla-ros", "say", "touch it"], ["make", "demo"], ["ros2", "pkg", "prefix", "vla_ros"], ["ls"]]
    assert commands(text) == expected
