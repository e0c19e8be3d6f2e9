"""The pages: their links lead somewhere, their tables of fields are the classes' own, their robot file loads."""

import re
from pathlib import Path

import pytest

from vla_ros.control import remedies
from vla_ros.control.admission import Reason
from vla_ros.control.supervisor import Cause, State
from vla_ros.core.robot import RobotSpec

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md")]
PAGES += sorted(ROOT.glob("docs/*.md"))
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


def test_the_robot_file_of_the_page_loads(tmp_path: Path):
    text = re.search(r"^```yaml\n(.*?)^```", (ROOT / "docs/robot_file.md").read_text(), re.MULTILINE | re.DOTALL)[1]
    file = tmp_path / "my_arm.yaml"
    file.write_text(text)
    robot = RobotSpec.load(file)
    assert robot.joints[-1].unit == "m" and robot.cameras[0].compressed and len(robot.groups) == 2
