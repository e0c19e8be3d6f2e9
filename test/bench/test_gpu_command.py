"""benchmarks/gpu: the command for a GPU that is at hand for minutes, rehearsed on the CPU."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).parents[2] / "benchmarks/gpu"
sys.path.insert(0, str(GPU))
import supervise

WORKER = """
import json, os, sys, threading, time
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
def say(**line): print(json.dumps(line), flush=True)
print("a library's own words")
for part in sys.argv[1:]:
    say(begin=part)
    say(part=part, process=os.getpid())
    if part == "act": time.sleep(600)
    if part == "groot": sys.exit("no memory left")
    say(done=part)
    if part == "pi05": sys.exit(1)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    file = tmp_path / "worker.py"
    file.write_text(WORKER)
    monkeypatch.setattr(supervise, "WORKER", file)
    return file


def read(folder):
    return [json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines()]


def test_a_part_that_hangs_or_dies_costs_that_part_alone(worker, tmp_path, capfd):
    report = supervise.Report(tmp_path / "gpu.jsonl")
    parts, deadlines = ["machine", "act", "pi05", "groot", "openvla"], dict.fromkeys(supervise.PARTS, 600.0)
    assert supervise.run(parts, deadlines | {"act": 0.2}, 3600.0, [], report)
    lines = read(tmp_path)
    assert [line["part"] for line in lines if "process" in line] == parts
    assert {line["part"]: line["problem"] for line in lines if "problem" in line} == {
        "act": "not done within 0.2 s", "groot": "ended with 1: no memory left"
    }  # fmt: skip
    assert len({line["process"] for line in lines if "process" in line}) == 4  # pi05 asked for another
    hung = next(line["process"] for line in lines if line["part"] == "act")
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)
    said = capfd.readouterr()
    assert [json.loads(line) for line in said.out.splitlines()] == lines
    assert "a library's own words" in said.err


def test_what_the_time_does_not_allow_is_said(worker, tmp_path):
    report = supervise.Report(tmp_path / "gpu.jsonl")
    assert supervise.run(["pi05", "smolvla"], dict.fromkeys(supervise.PARTS, 9.0), 0.0, [], report)
    assert [line["problem"] for line in read(tmp_path)] == ["not measured: out of time"] * 2


def test_it_ends_when_it_is_told_to(worker, tmp_path):
    """With what it has, and with what it started."""
    code = f"import sys, supervise; supervise.WORKER = {str(worker)!r}; sys.exit(supervise.main())"
    command = [sys.executable, "-u", "-c", code, str(tmp_path), "--parts", "machine", "act", "openvla"]
    with subprocess.Popen(command, cwd=GPU, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 1
    assert [line["part"] for line in lines] == ["machine", "act"]
    more = read(tmp_path)[2:]
    assert [line["part"] for line in more] == ["act", "openvla", "end"]
    assert more[0]["problem"] == more[1]["problem"] == "not measured: ended by SIGTERM"
    with pytest.raises(ProcessLookupError):
        os.kill(lines[1]["process"], 0)


def test_every_part_has_a_deadline_and_all_fit_into_eight_minutes():
    source = (GPU / "measure.py").read_text()
    assert all(f'"{part}": ' in source for part in supervise.PARTS)
    assert max(supervise.PARTS.values()) <= 120 and supervise.LIMIT < 470
    assert "timeout --kill-after=5 470" in (GPU / "run.sh").read_text()


def test_a_rehearsal_on_the_cpu(tmp_path):
    parts = ["machine", "pi0_1", "pi0_3_fused", "act", "openvla", "groot"]
    command = [str(GPU / "run.sh"), str(tmp_path), "--rehearse", "--part-limit", "400", "--parts", *parts]
    result = subprocess.run(command, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True)
    lines = read(tmp_path)
    assert result.returncode == 0 and result.stdout.splitlines() == (tmp_path / "gpu.jsonl").read_text().splitlines()
    assert [line["part"] for line in lines if line.get("way", "eager") == "eager"] == [*parts, "end"]
    fused = next(line for line in lines if "way" not in line and line["part"] == "pi0_3_fused")
    assert fused["problem"].startswith("dtype float8: it needs an NVIDIA GPU")
    eager = {line["part"]: line for line in lines if line.get("way") == "eager"}
    for line in eager.values():
        assert 0 < line["median_ms"] <= line["p99_ms"] and line["encode_ms"] > 0 and line["act_ms"] > 0
        assert line["bound_ms"] > 0 and line["memory_gb"] > 0 and line["runs"] == 3
    absent = {line.get("way"): line["problem"] for line in lines if "problem" in line}
    assert absent["graph"] == "a CPU has no CUDA graphs" and "LeRobot" in absent
    near = {line["part"]: line for line in lines if line.get("way") == "float32"}
    assert near["pi0_1"]["cosine"] == near["groot"]["cosine"] == near["openvla"]["same_tokens"] == 1.0
