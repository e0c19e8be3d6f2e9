"""The console as people use it: a real browser, the real graph, the simulated arm."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium (requirements/dev.txt) is not installed")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if "VLA_CONSOLE_PICTURES" not in os.environ:  # a minute, and more than a busy machine has beside the other graphs
    pytest.skip("VLA_CONSOLE_PICTURES names no folder for the screenshots", allow_module_level=True)
if not (BROWSER and DRIVER):
    pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver", allow_module_level=True)

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from sensor_msgs.msg import JointState
from system.robot import ROBOT_FILE
from system.support import DEADLINE, Probe

from vla_ros.bags.index import index_bag
from vla_ros.bags.reader import Bag
from vla_ros.cli.demo import CHECKPOINT
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.processes import Graph
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.qos import STATUS_QOS, sensor_qos

HOSTILE = "<img src=x onerror=window.hit=1> the red cube"
# Nothing here is about a machine that pauses.
PATIENT = {"joint_state_timeout": 10.0, "following_limit": 0.0, "overrun_limit": 10.0, "max_chunk_age": 30.0,
           "takeover_timeout": 10.0, "resume": "automatic"}  # fmt: skip
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Page:
    """The console in a browser, looked at and touched as a person does."""

    def __init__(self, url: str, pictures: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                         "--force-prefers-reduced-motion", "--disable-extensions",
                         "--disable-background-networking", "--window-size=1440,1050"):
            options.add_argument(argument)
        self.browser = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.browser.set_script_timeout(DEADLINE)
        self._pictures = pictures
        self.browser.get(url)

    def find(self, name: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, name)

    def text(self, name: str) -> str:
        return self.browser.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", name)

    def wait(self, predicate: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            try:
                if value := predicate():
                    return value
            except StaleElementReferenceException:
                pass
            time.sleep(0.05)
        self.picture("failed")
        raise AssertionError(f"{what}: the page says {self.text('main')[:2000]!r}, answer {self.text('#answer')!r}")

    def _may(self, name: str) -> bool:
        """It can be pressed; a page that was paused for seconds has lost its connection, and with it that it is armed.
        """
        if name != "#arm" and self.text("#arm") == "Arm this page" and self.find("#arm").is_enabled():
            self.browser.execute_script("document.querySelector('#arm').click()")
        return self.find(name).is_enabled()

    def click(self, name: str) -> None:
        self.wait(lambda: self._may(name), f"{name} to be pressed")
        self.browser.execute_script("document.querySelector(arguments[0]).click()", name)

    def type(self, name: str, text: str) -> None:
        self.wait(lambda: self._may(name), f"{name} to be typed into")
        self.find(name).clear()
        self.find(name).send_keys(text, Keys.ENTER)

    def press(self, key: str, button: str) -> None:
        """A key, once the button that it stands for can be pressed."""
        self.wait(lambda: self._may(button), f"{button} to be pressed by {key}")
        self.browser.execute_script("document.activeElement.blur()")
        self.find("body").send_keys(key)

    def on_a_phone(self, name: str) -> None:
        """Held upright: a picture of it, and that everything is as wide as the screen and the e-stop in view."""
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        try:
            self.wait(lambda: self.browser.execute_script("return innerWidth") == PHONE["width"], "the phone")
            self.picture(name)
            assert self.browser.execute_script("return document.documentElement.scrollWidth") <= PHONE["width"]
            box = self.find("#estop").rect
            at = self.browser.execute_script(
                "const box = document.getElementById('estop').getBoundingClientRect();"
                "return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2).id")
            assert at == "estop" and box["width"] > 0.8 * PHONE["width"] and box["height"] > 48
        finally:
            self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def picture(self, name: str) -> None:
        self._pictures.mkdir(parents=True, exist_ok=True)
        self.browser.save_screenshot(str(self._pictures / f"{name}.png"))


@pytest.fixture
def page(graph: Graph, tmp_path: Path) -> Iterator[Page]:
    robot = tmp_path / "so101.yaml"  # with pictures that a machine without GPU can draw beside a browser
    changes = {"width: 640": "width: 320", "height: 480": "height: 240", "rate: 30.0}": "rate: 5.0}"}
    text = ROBOT_FILE.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    robot.write_text(text)
    port, common = free_port(), {"robot": str(robot)}
    graph.start("sim_node", parameters=common)
    graph.start("policy_node", parameters=common | {"policy": str(CHECKPOINT), "threads": 1, "max_age": 30.0,
                                                    "max_rate": 3.0})
    graph.start("executor_node", parameters=common | PATIENT)
    graph.start("task_node", parameters=common | {"silence_limit": 30.0})
    graph.start("recorder_node", parameters=common | {"compressed_images": True})
    graph.start("console_node", parameters=common | {"port": port, "recordings": str(tmp_path / "recordings"),
                                                     "policy": str(CHECKPOINT), "compare": str(CHECKPOINT)})
    graph.bring_up("sim_node", "policy_node", "executor_node", "task_node", "console_node")
    made = Page(f"http://localhost:{port}/", Path(os.environ["VLA_CONSOLE_PICTURES"]))
    yield made
    made.browser.quit()


def test_an_operator_works_with_the_robot(graph: Graph, probe: Probe, page: Page, tmp_path: Path):
    probe.record("executor_node/status", ExecutorStatus, STATUS_QOS)

    def executor() -> ExecutorStatus:
        return probe.last("executor_node/status")

    page.wait(lambda: page.text("#executor .pill").startswith("holding"), "the executor")
    assert page.text("#robot") == "so101" and page.text("#link") == "connected"
    assert not page.find("#start").is_enabled()  # it only watches

    # Arms, and types an instruction.
    page.click("#arm")
    page.wait(lambda: page.text("#armed") == "this page is armed", "to be armed")
    page.type("#text", "touch the red cube")
    page.wait(lambda: page.text("#executor .pill") == "executing", "the executor to follow")
    assert executor().instruction == "touch the red cube"
    page.wait(lambda: "ms" in page.text("#images figure span:last-child"), "images")
    page.wait(lambda: page.text("#policy .pill") == "running", "the policy")
    page.wait(lambda: page.text("#checks"), "the checks")

    # Changes its mind in mid-run, and records from here on.
    page.press("r", "#record")
    page.wait(lambda: page.text("#rec").startswith("recording"), "the recording")
    page.type("#text", "touch the blue cube")
    page.wait(lambda: page.text("#history li:nth-child(2) .pill") == "preempted", "the end of the first task")
    page.wait(lambda: executor().instruction == "touch the blue cube", "the second instruction")
    page.wait(lambda: page.text("#parts"), "the split of the latency")
    page.picture("working")
    page.on_a_phone("phone")

    # A person takes over, and gives back.
    joints = graph.node.create_publisher(JointState, "executor_node/takeover/joint_command", sensor_qos(reliable=True))
    stays = JointState(name=list(executor().names), position=list(executor().position))
    graph.node.create_timer(0.05, lambda: joints.publish(stays))
    page.click("#control button")
    page.wait(lambda: "has taken over" in page.text("#led"), "the takeover")
    assert executor().state == ExecutorStatus.TAKEN_OVER
    page.click("#control button")
    page.wait(lambda: page.text("#led") == "" and page.text("#control .pill") == "the policy commands", "to give back")

    # The e-stop by a key, while a button has the focus that the space would press.
    page.browser.execute_script("document.getElementById('stop').focus()")
    page.browser.switch_to.active_element.send_keys(Keys.SPACE)
    page.wait(lambda: page.find("#latched").is_displayed(), "the e-stop")
    assert executor().state == ExecutorStatus.E_STOPPED
    page.wait(lambda: page.text("#history li .pill") == "e stopped", "the typed result of the task")
    page.picture("stopped")

    # Records the outcome: it is in the bag.
    page.press("f", "[data-outcome=failure]")
    page.wait(lambda: page.text("#episodes li .pill") == "failure", "the episode")
    (folder,) = (tmp_path / "recordings").iterdir()
    with Bag(folder) as bag:
        verdicts = index_bag(bag, RobotSpec.load(ROBOT_FILE)).verdicts
    assert [verdict.outcome for verdict in verdicts if verdict.by.startswith("operator")] == ["failure"]

    # Replays it, with two policies over it.
    page.click("#episodes button")
    page.wait(lambda: page.find("#replay").is_displayed(), "the replay")
    assert "hold still" in page.text("#replay-words") and "pi0_tiny (2)" in page.text("#replay .legend")
    drawn = ("return document.querySelector('#replay-images canvas').getContext('2d').getImageData(5, 5, 1, 1).data[3]")
    page.wait(lambda: page.browser.execute_script(drawn) == 255, "its pictures")
    page.browser.execute_script("const at = document.getElementById('replay-at'); at.value = at.max / 2;"
                                "at.dispatchEvent(new Event('input'))")
    assert page.text("#replay-time").split()[0] != "0.0"
    page.picture("replay")
    page.on_a_phone("phone_replay")
    page.click("#replay-close")

    # Resets, which asks why.
    page.type("#reset-why", "-")
    page.wait(lambda: "expected 3 to" in page.text("#answer"), "the refusal of a reset without a reason")
    assert executor().state == ExecutorStatus.E_STOPPED
    page.type("#reset-why", "the arm is clear")
    page.wait(lambda: not page.find("#latched").is_displayed(), "the reset")
    assert ": the arm is clear" in (graph.folder / "console_node.log").read_text()

    # A text that would be markup is a text.
    page.type("#text", HOSTILE)
    page.wait(lambda: HOSTILE in page.text("#current"), "the hostile text")
    assert page.browser.execute_script("return window.hit ?? document.querySelector('img')") is None
    page.wait(lambda: page.text("#executor .pill") == "executing", "the executor to follow again")

    # The console dies in motion, and nothing else notices.
    graph.kill("console_node", signal.SIGKILL)
    page.wait(lambda: "no connection" in page.text("#link"), "the page to say so")
    before = executor().accepted_chunks
    probe.wait_for(lambda: executor().accepted_chunks > before + 3, "further chunks")
    assert executor().state in (ExecutorStatus.EXECUTING, ExecutorStatus.APPROACHING)
