"""What is wrong with a command of a page, found without running it."""

import ast
import contextlib
import io
import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import yaml
from cli.test_options import PARSERS
from doc_blocks import ROOT, commands

from vla_ros.nodes.parameter_files import NODES

# Programs that are not ours, and of which nothing but files of ours is checked.
OTHERS = {"cd", "cp", "mkdir", "git", "touch", "export", ".", "rosdep", "colcon", "rviz2", "rerun", "docker", "curl",
          "sudo", "apt-get", "sysctl", "ls", "pre-commit"}  # fmt: skip
ROS2 = {"run", "launch", "topic", "service", "action", "param", "lifecycle", "security", "pkg", "bag"}
FOLDERS = ("config", "docs", "benchmarks", "scripts", "test", "vla_ros", "requirements", "launch", "msg", "action")


def problems(text: str) -> list[str]:
    """Of every command in a block of shell; empty where all are sound."""
    found = []
    for words in commands(text):
        try:
            CHECKS.get(words[0], other)(words)
        except (ValueError, OSError, ImportError, AttributeError, yaml.YAMLError) as error:
            found.append(f"{' '.join(words)}: {error}")
        found += [f"{' '.join(words)}: {word}: no such file" for word in words if missing(word)]
    return found


def missing(word: str) -> bool:
    """Whether it names a file of the repository that is not there."""
    path = word.split("#")[0].split("::")[0].removeprefix("src/vla_ros/").rpartition("=")[2]
    is_ours = path.split("/")[0] in FOLDERS and "/" in path
    if not is_ours or re.match(r"vla_ros/((msg|srv|action)/)?[A-Z]", path) or re.search(r"[<{$]", path):
        return False
    return not any(ROOT.glob(path.rstrip("/")))


def vla_ros(words: list[str], complete: bool = True) -> None:
    """`vla-ros NAME …` against the parser of that command; of an incomplete one its options alone."""
    name = " ".join(words[1:3]) if " ".join(words[1:3]) in PARSERS else "".join(words[1:2])
    if name not in PARSERS:
        if words[1:2] in (["--version"], ["--help"]):
            return
        raise ValueError(f"no command {name!r}")
    parser = PARSERS[name]
    if not complete:
        flags = [word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)]
        known = parser.format_help()
        if unknown := [flag for flag in flags if not re.search(rf"(?<![\w-]){flag}(?![\w-])", known)]:
            raise ValueError(f"no option {unknown[0]}")
        return
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            parser.parse_args(words[1 + len(name.split()) :])
        except SystemExit as ended:
            if ended.code:
                raise ValueError(said.getvalue().strip().splitlines()[-1]) from None


def node_parameters(node: str, words: list[str]) -> None:
    """`-p NAME:=VALUE`, of a node of ours."""
    if node not in NODES:
        raise ValueError(f"no node {node}")
    module, kind = NODES[node]
    known = getattr(import_module(module), kind).__dataclass_fields__
    given = [word.partition(":=")[0] for before, word in zip(words, words[1:], strict=False) if before == "-p"]
    if unknown := [name for name in given if name not in known and name != "use_sim_time"]:
        raise ValueError(f"no parameter {unknown[0]}")


def options_of_a_script(script: str, words: list[str]) -> None:
    """Looked for in its source; of a shell script, which starts Python, in those beside it."""
    path = ROOT / script
    sources = [path, *path.parent.glob("*.py")] if path.suffix == ".sh" else [path]
    source = "".join(source.read_text() for source in sources)
    flags = [word.strip("[]").partition("=")[0] for word in words if word.strip("[").startswith("--")]
    if unknown := [flag for flag in flags if f'"{flag}"' not in source and f"{flag})" not in source]:
        raise ValueError(f"{script}: no option {unknown[0]}")


def python(words: list[str]) -> None:
    if "-c" in words:
        compile(words[words.index("-c") + 1], "-c", "exec")
    elif "-m" not in words:
        options_of_a_script(words[1], words[2:])
    else:
        module, rest = words[words.index("-m") + 1], words[words.index("-m") + 2 :]
        if module == "vla_ros.cli.main":
            vla_ros(["vla-ros", *rest])
        elif module.startswith("vla_ros.nodes."):
            node_parameters(module.rpartition(".")[2], rest)
        elif module not in ("pytest", "pip", "venv", "http.server"):
            import_module(module)


def launch_arguments(file: str) -> set[str]:
    """Of a launch file, read without launch; those of vla.launch.py are taken by demo.launch.py too."""
    path = next((path for folder in ("launch", "config/ros2_control") for path in [ROOT / folder / file]
                 if path.exists()), None)  # fmt: skip
    if path is None:
        raise ValueError(f"no launch file {file}")
    names: set[str] = set()
    for tree in {path, ROOT / "launch/vla.launch.py"} if file == "demo.launch.py" else {path}:
        for statement in ast.parse(tree.read_text()).body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "ARGUMENTS":
                names |= {ast.literal_eval(key) for key in statement.value.keys}
    return names


def interface(name: str, text: str) -> None:
    """`{…}` of `ros2 topic pub` and its kind: the type is there and has these fields."""
    if find_spec("rclpy") is None:
        return
    package, kind, word = name.split("/")
    message = getattr(import_module(f"{package}.{kind}"), word)
    message = {"srv": lambda: message.Request, "action": lambda: message.Goal}.get(kind, lambda: message)()
    if unknown := set(yaml.safe_load(text) or {}) - set(message.get_fields_and_field_types()):
        raise ValueError(f"{name} has no {', '.join(sorted(unknown))}")


def ros2(words: list[str]) -> None:
    if words[1] not in ROS2:
        raise ValueError(f"no command ros2 {words[1]}")
    if words[1:3] == ["launch", "vla_ros"]:
        known = launch_arguments(words[3])
        given = [word.partition(":=")[0] for word in words[4:] if ":=" in word]
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"{words[3]}: no argument {unknown[0]}")
    if words[1:3] == ["run", "vla_ros"]:
        node_parameters(words[3], words[4:])
    for place, word in enumerate(words):
        if re.fullmatch(r"\w+/(msg|srv|action)/\w+", word):
            interface(word, words[place + 1] if place + 1 < len(words) else "{}")


def make(words: list[str]) -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if unknown := [word for word in words[1:] if "=" not in word and word not in targets]:
        raise ValueError(f"no target {unknown[0]}")


def pip(words: list[str]) -> None:
    if "install" not in words and "download" not in words:
        raise ValueError("expected pip install or download")
    extras = re.findall(r"^optional-dependencies\.(\w+)\.", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for word in words:
        if match := re.search(r"^(?:\.|vla_ros)\[(.*)\]$", word):
            if unknown := set(match[1].split(",")) - set(extras):
                raise ValueError(f"no extra {', '.join(unknown)}")


def torchrun(words: list[str]) -> None:
    python(["python", *words[words.index("-m") :]])


def script(words: list[str]) -> None:
    options_of_a_script(words[0], words[1:])


def other(words: list[str]) -> None:
    if words[0] not in OTHERS:
        raise ValueError("a program that test/doc_checks.py does not know")


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "vla-ros": vla_ros, "python": python, "python3": python, "pytest": lambda words: None, "ros2": ros2, "make": make,
    "pip": pip, "torchrun": torchrun, "benchmarks/gpu/run.sh": script, ".ci/run": lambda words: None,
}  # fmt: skip


def problems_of_prose(text: str) -> list[str]:
    """Commands and files between backticks."""
    found = []
    for code in re.findall(r"`([^`\n]+)`", text):
        words = code.split()
        if words[:1] == ["vla-ros"] and len(words) > 1:
            try:
                vla_ros(words, complete=False)
            except ValueError as error:
                found.append(f"`{code}`: {error}")
        elif len(words) == 1 and missing(code):
            found.append(f"`{code}`: no such file")
    return found


def examples(page: Path) -> list[str]:
    """The lines of commands in the docstring of a command's module."""
    said = ast.get_docstring(ast.parse(page.read_text())) or ""
    return [line.strip() for line in said.splitlines() if re.match(r" +(vla-ros|torchrun|ros2) ", line)]
