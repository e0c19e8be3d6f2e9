"""A small run of benchmarks/two_executors.py: two executors that start at the same moment, as if on two machines."""

from pathlib import Path

from system.support import free_domain

ROOT = Path(__file__).parents[2]


def test_two_that_start_at_the_same_moment_never_both_command(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import two_executors

    # A claim may take longer than joint states stay fresh: a busy machine, a network.
    slow = two_executors.ELSEWHERE.replace("socket.socket()", "(time.sleep(0.4), socket.socket())[1]")
    monkeypatch.setattr(two_executors, "ELSEWHERE", slow.replace("import socket", "import time, socket"))
    result = two_executors.run(tmp_path, rounds=2, elsewhere=True, domain=free_domain())
    assert (result["one_commands"], result["two_command"]) == (2, 0)
