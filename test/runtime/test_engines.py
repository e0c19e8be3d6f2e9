"""Engines other than torch: the same actions, what they keep, what they refuse; and graphs for other programs."""

import json
from dataclasses import replace

import families
import numpy as np
import pytest
import torch
from families import fresh, sample

from vla_ros.cli.main import main as vla_ros
from vla_ros.core.errors import InputError
from vla_ros.runtime.engines import backends
from vla_ros.runtime.engines.backends import OnnxRuntime, OpenVino, TorchProgram
from vla_ros.runtime.engines.export import export_graphs
from vla_ros.runtime.session import PolicySession, SessionOptions


class Slow(TorchProgram):
    """Torch's own programs as an engine: all that is ours around one, without a converter's seconds."""

    name = "slow"
    factor = 1.0

    @classmethod
    def load(cls, path, inputs, threads):
        run = TorchProgram.load(path, inputs, threads)
        return lambda tensors: [value * cls.factor if value.is_floating_point() else value for value in run(tensors)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/vla_ros/engines"


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setitem(backends.ENGINES, "slow", Slow)
    monkeypatch.setattr(backends, "NAMES", (*backends.NAMES, "slow"))
    monkeypatch.setattr(backends, "OpenVino", Slow)  # what auto takes
    monkeypatch.setattr(backends.platform, "machine", lambda: "x86_64")
    return Slow


def actions(session, one, seed=3):
    session.seed(seed)
    return session.infer([one])[0].answer.numpy()


def close(found, expected):
    return np.abs(found - expected).max() <= 1e-4 * np.ptp(expected)


def warmed(loaded, engine, **options):
    session = PolicySession(loaded, SessionOptions(engine=engine, **options))
    session.warm_up(sample(loaded.processor))
    return session


@pytest.mark.parametrize("engine, family", [("openvino", "smolvla"), ("onnxruntime", "act")])
def test_an_engine_gives_torchs_actions(engine, family):
    if backends.ENGINES[engine].missing():
        pytest.skip("not installed")
    loaded = fresh(family)
    session, plain = warmed(loaded, engine), PolicySession(loaded)
    assert session.title.endswith(f"on cpu with {engine}")
    for seed in (1, 2):
        one = sample(loaded.processor, seed, families.INSTRUCTIONS[seed - 1])
        assert close(actions(session, one, seed), actions(plain, one, seed))


def test_a_step_is_guided_and_what_is_remembered_goes_on(slow):
    """The loop stays in torch, so all that a session does around the network is as ever."""
    loaded = fresh("pi0")
    one = sample(loaded.processor)
    found = []
    for session in (warmed(loaded, "slow", guided=True), PolicySession(loaded, SessionOptions(guided=True))):
        actions(session, one)
        session.delivered(0.15)
        found.append(actions(session, replace(one, stamp_ns=200_000_000), 5))
    assert close(*found)


def test_graphs_are_kept_and_those_of_other_weights_made_anew(slow, cache, monkeypatch, caplog):
    loaded = fresh("act")
    warmed(loaded, "slow")
    assert [record.args for record in caplog.records] == [("slow", "encode"), ("slow", "act")]
    (folder,) = cache.iterdir()
    caplog.clear()
    warmed(loaded, "slow")
    assert not caplog.records
    with torch.no_grad():
        loaded.policy.action_head.weight.mul_(1.5)
    monkeypatch.setattr("vla_ros.runtime.session.cache_folder", lambda *_: folder)  # as if the digest had not seen it
    session = warmed(loaded, "slow")
    assert [record.args for record in caplog.records] == [("slow", "encode"), ("slow", "act")]
    one = sample(loaded.processor)
    assert close(actions(session, one), actions(PolicySession(loaded), one))


def test_another_answer_than_torchs_is_refused_and_auto_goes_on_with_torch(slow, monkeypatch, caplog):
    loaded = fresh("act")
    monkeypatch.setattr(Slow, "factor", 1.01)
    with pytest.raises(InputError, match=r"engine slow: its actions differ from torch's by \d.\de-0\d of their range"):
        warmed(loaded, "slow")
    caplog.clear()
    session, one = warmed(loaded, "auto"), sample(loaded.processor)
    assert "torch, since engine slow: its actions differ" in caplog.records[-1].getMessage()
    assert session.title.endswith("on cpu")
    assert np.array_equal(actions(session, one), actions(PolicySession(loaded), one))


def test_auto_takes_the_engine_but_not_for_prompts_of_any_length(slow):
    assert warmed(fresh("act"), "auto").title.endswith("on cpu with slow")
    assert PolicySession(fresh("go1"), SessionOptions(engine="auto")).title.endswith("on cpu")


@pytest.mark.parametrize("options, said", [
    ({"engine": "tpu"}, "engine 'tpu', expected auto, torch, openvino or onnxruntime"),
    ({"engine": "openvino", "compile": True}, "engine openvino: compile is torch's own"),
    ({"engine": "openvino", "guided": True, "exact_guidance": True}, "engine openvino: rtc_exact needs gradients"),
])  # fmt: skip
def test_what_no_engine_does_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        PolicySession(fresh("pi0"), SessionOptions(**options))


def test_bfloat16_is_torchs(monkeypatch):
    loaded = fresh("act")
    loaded.policy.store_as(torch.bfloat16)
    with pytest.raises(InputError, match="it works in float32, the weights are bfloat16; expected dtype float32"):
        PolicySession(loaded, SessionOptions(engine="openvino"))
    assert PolicySession(loaded, SessionOptions(engine="auto")).title.endswith("on cpu")
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="no module openvino; expected: pip install -r requirements/engine.txt"):
        PolicySession(fresh("act"), SessionOptions(engine="openvino"))


def again(folder, backend):
    """What another program does: the graphs, one after the other, on the example."""
    said = json.loads((folder / "graphs.json").read_text())
    known = {name: torch.from_numpy(value) for name, value in np.load(folder / "example.npz").items()}
    expected = known.pop("actions")
    for stage in ("encode", "act"):
        graph = said["graphs"][stage]
        names = [each["name"] for each in graph["inputs"]]
        assert all(list(known[each["name"]].shape) == each["shape"] for each in graph["inputs"])
        found = backend.load(folder / graph["file"], names, 1)([known[name] for name in names])
        known |= dict(zip([each["name"] for each in graph["outputs"]], found, strict=True))
    return said, known, expected


@pytest.mark.parametrize("family, backend", [("pi0", OpenVino), ("robovlms", OnnxRuntime), ("diffusion", TorchProgram)])
def test_a_policy_as_two_graphs(tmp_path, family, backend):
    if backend.missing():
        pytest.skip("not installed")
    form = {"onnxruntime": "onnx"}.get(backend.name, backend.name)
    loaded = fresh(family)
    words = export_graphs(tmp_path / "out", loaded, sample(loaded.processor), form)
    assert words.startswith(f"{form}: encode{backend.ending} and act{backend.ending}, actions as torch's to")
    said, known, expected = again(tmp_path / "out", backend)
    assert close(known["actions"].numpy(), expected.numpy())
    assert ("memory.window" in known) == (family == "robovlms")
    processor = said["processor"]
    assert processor["actions"]["statistics"]["std"] == pytest.approx([0.3] * 6)
    assert [each["joint"] for each in processor["embodiment"]["actions"]] == list(families.JOINTS)
    assert said["joints"] == list(families.JOINTS) and said["horizon"] == loaded.processor.horizon


def test_what_is_no_graph_is_refused_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    loaded = fresh("pi0_fast")
    with pytest.raises(InputError, match="act of Pi0Fast works on until the values it computes say"):
        export_graphs(tmp_path / "out", loaded, sample(loaded.processor), "pt2")
    monkeypatch.setattr(Slow, "factor", 1.01)
    monkeypatch.setitem(export_graphs.__globals__["FORMATS"], "pt2", Slow)
    loaded = fresh("act")
    with pytest.raises(InputError, match="its actions differ from torch's by .* nothing was written"):
        export_graphs(tmp_path / "out", loaded, sample(loaded.processor), "pt2")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no trtexec on the PATH"):
        export_graphs(tmp_path / "out", loaded, sample(loaded.processor), "tensorrt")
    assert vla_ros(["export", "x", "--to", "torchscript", "--output", str(tmp_path / "out")]) != 0
    assert "expected pt2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
