"""Engines other than torch: the same actions, what they keep, what they refuse; and graphs for other programs."""

import json
import subprocess
import sys
from dataclasses import replace

import families
import numpy as np
import pytest
import torch
from families import fresh, sample
from runtime import tiny_policy as tiny

from vla_ros.cli.main import main as vla_ros
from vla_ros.core.errors import InputError
from vla_ros.policies.policy import Answer
from vla_ros.runtime.engines import backends
from vla_ros.runtime.engines.backends import OnnxRuntime, OpenVino, OpenVinoInt8, TensorRt, TorchProgram, plain_norms
from vla_ros.runtime.engines.engaged import difference, survived
from vla_ros.runtime.engines.export import export_graphs
from vla_ros.runtime.engines.int8 import rounded, whole
from vla_ros.runtime.session import PolicySession, SessionOptions


class Programs(TorchProgram):
    """Torch's own programs as an engine: all that is ours around one, without a converter's seconds."""

    name = "programs"
    factor = 1.0

    @classmethod
    def load(cls, path, inputs, threads):
        run = TorchProgram.load(path, inputs, threads)
        return lambda tensors: [value * cls.factor if value.is_floating_point() else value for value in run(tensors)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VLA_ROS_ENGINE", raising=False)
    return tmp_path / "cache/vla_ros/engines"


@pytest.fixture
def programs(monkeypatch):
    monkeypatch.setitem(backends.ENGINES, "programs", Programs)
    monkeypatch.setattr(backends, "NAMES", (*backends.NAMES, "programs"))
    monkeypatch.setattr(backends, "OpenVino", Programs)  # what auto takes
    monkeypatch.setattr(backends.platform, "machine", lambda: "x86_64")
    return Programs


def actions(session, one, seed=3):
    session.seed(seed)
    return session.infer([one])[0].answer.numpy()


def close(found, expected):
    return np.abs(found - expected).max() <= 1e-4 * np.ptp(expected)


def warmed(loaded, engine, one=None, **options):
    session = PolicySession(loaded, SessionOptions(engine=engine, **options))
    session.warm_up(one or tiny.sample())
    return session


def converted(caplog):
    return [record.args for record in caplog.records if "converting" in record.msg]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_engine_gives_torchs_actions(engine):
    if backends.ENGINES[engine].missing():
        pytest.skip("not installed")
    real = engine == "openvino"  # one of them on a real network will do: the graphs are the same
    loaded = fresh("xvla", num_steps=2) if real else tiny.loaded()
    first, second = (sample(loaded.processor, n, families.INSTRUCTIONS[n]) if real else tiny.sample(state=(0.1, n))
                     for n in (0, 1))  # fmt: skip
    session, plain = warmed(loaded, engine, first), PolicySession(loaded)
    assert session.title.endswith(f"on cpu with {engine}")
    for one in (first, second):
        assert close(actions(session, one), actions(plain, one))


def test_what_is_remembered_is_compared_too():
    actions, memory = torch.arange(4.0), torch.arange(6.0)
    expected = Answer(actions, {"window": memory, "steps": torch.tensor([2])})
    assert difference(expected, expected) == 0
    other = Answer(actions, {"window": memory + 0.5, "steps": torch.tensor([2])})
    assert difference(other, expected) == pytest.approx(0.1)
    assert difference(Answer(actions, {"window": memory, "steps": torch.tensor([3])}), expected) == 1
    assert np.isnan(difference(Answer(actions, {"window": memory * np.nan, "steps": torch.tensor([2])}), expected))


def test_a_step_of_denoising_is_guided(programs):
    """The loop stays in torch, and keys and values come into the step as a tensor."""
    loaded = fresh("pi0")
    one = sample(loaded.processor)
    found = []
    for session in (warmed(loaded, "programs", one, guided=True), PolicySession(loaded, SessionOptions(guided=True))):
        actions(session, one)
        session.delivered(0.15)
        found.append(actions(session, replace(one, stamp_ns=200_000_000), 5))
    assert close(*found)


def test_a_small_policys_steps_are_one_graph(programs, monkeypatch, caplog):
    loaded = fresh("pi0", num_steps=2)
    one = sample(loaded.processor)
    session, plain = warmed(loaded, "programs", one), PolicySession(loaded)
    assert [name for _, name in converted(caplog)] == ["encode", "act"]
    assert close(actions(session, one), actions(plain, one))
    caplog.clear()
    warmed(loaded, "programs", one)  # from the file, which asks torch for the shapes alone
    assert converted(caplog) == []
    monkeypatch.setattr("vla_ros.runtime.engines.engaged.SMALL", 0)
    session = warmed(loaded, "programs", one)
    assert [name for _, name in converted(caplog)] == ["velocity"]
    assert close(actions(session, one), actions(plain, one))


def test_graphs_are_kept_and_those_of_other_weights_made_anew(programs, cache, monkeypatch, caplog):
    loaded, made = tiny.loaded(), [("programs", name) for name in ("encode", "act", "encode")]  # prompts of two lengths
    warmed(loaded, "programs")
    assert converted(caplog) == made
    (folder,) = cache.iterdir()
    caplog.clear()
    warmed(loaded, "programs")
    assert not caplog.records
    with torch.no_grad():
        loaded.policy.scale.mul_(1.5)
    monkeypatch.setattr("vla_ros.runtime.session.cache_folder", lambda *_: folder)  # as if the digest had not seen it
    session, plain = warmed(loaded, "programs"), PolicySession(loaded)
    assert converted(caplog) == made
    for state in ((0.1, 0.2), (0.5, -0.3)):  # what is remembered of the first counts in the second
        assert close(actions(session, tiny.sample(state=state)), actions(plain, tiny.sample(state=state)))


def test_a_kept_graph_that_cannot_be_read_is_made_anew(programs, cache, caplog):
    loaded = tiny.loaded()
    warmed(loaded, "programs")
    for file in cache.rglob("graph.pt2"):
        file.write_bytes(b"")
    caplog.clear()
    session, one = warmed(loaded, "programs"), tiny.sample()
    assert converted(caplog) == [("programs", "encode"), ("programs", "act"), ("programs", "encode")]
    assert close(actions(session, one), actions(PolicySession(loaded), one))
    caplog.clear()
    warmed(loaded, "programs")
    assert not caplog.records


def test_another_answer_than_torchs_is_refused_and_auto_goes_on_with_torch(programs, monkeypatch, caplog):
    loaded = tiny.loaded()
    monkeypatch.setattr(Programs, "factor", 1.01)
    with pytest.raises(InputError, match=r"engine programs: its actions differ from torch's by \d.\de-0\d of"):
        warmed(loaded, "programs")
    caplog.clear()
    session, one = warmed(loaded, "auto"), tiny.sample()
    assert "torch, since engine programs: its actions differ" in caplog.records[-1].getMessage()
    assert session.title.endswith("on cpu")
    assert np.array_equal(actions(session, one), actions(PolicySession(loaded), one))


def test_auto_takes_the_engine_where_converting_is_short(programs, monkeypatch, caplog):
    caplog.set_level("INFO")
    assert warmed(tiny.loaded(), "auto").title.endswith("on cpu with programs")
    assert warmed(tiny.loaded(tiny.Speaker), "auto").title.endswith("on cpu")
    assert caplog.messages[-1] == ("engine auto: torch, since each new length of instruction would be converted when "
                                   "it comes")
    monkeypatch.setattr("vla_ros.runtime.engines.engaged.MOST", 0)
    assert warmed(tiny.loaded(), "auto").title.endswith("on cpu")
    assert "billion parameters, more than" in caplog.messages[-1]


def test_the_environment_decides_for_auto_alone(programs, monkeypatch):
    monkeypatch.setenv("VLA_ROS_ENGINE", "torch")
    assert warmed(tiny.loaded(), "auto").title.endswith("on cpu")
    assert warmed(tiny.loaded(), "programs").title.endswith("with programs")
    monkeypatch.setenv("VLA_ROS_ENGINE", "tpu")
    with pytest.raises(InputError, match="VLA_ROS_ENGINE 'tpu', expected auto, torch"):
        PolicySession(tiny.loaded(), SessionOptions(engine="auto"))
    monkeypatch.setenv("VLA_ROS_ENGINE", "")  # as if it was not set
    assert warmed(tiny.loaded(), "auto").title.endswith("with programs")


def test_auto_goes_on_with_the_policys_own_weights(programs, monkeypatch):
    """Also where the engine that the environment names computes with others."""
    loaded, one = tiny.loaded(), tiny.sample()

    def other(policy):
        copied = tiny.loaded().policy.eval().requires_grad_(False)
        copied.scale.mul_(3)
        return copied

    monkeypatch.setenv("VLA_ROS_ENGINE", "programs")
    monkeypatch.setattr(Programs, "copied", other)
    assert not np.array_equal(actions(warmed(loaded, "auto"), one), actions(PolicySession(loaded), one))
    monkeypatch.setattr(Programs, "factor", 1.01)
    session = warmed(loaded, "auto")
    assert session.title.endswith("on cpu")
    assert np.array_equal(actions(session, one), actions(PolicySession(loaded), one))


def test_an_engine_that_loses_what_is_remembered_is_found_out(programs, monkeypatch, tmp_path):
    """At the start it is zeros."""
    load = Programs.load

    def forgetful(path, inputs, threads):
        run = load(path, inputs, threads)
        return lambda tensors: run([value * (value.shape != (1, 2)) for value in tensors])  # the sum of all states

    monkeypatch.setattr(Programs, "load", forgetful)
    with pytest.raises(InputError, match="its actions differ from torch's"):
        warmed(tiny.loaded(), "programs")
    monkeypatch.setitem(export_graphs.__globals__["FORMATS"], "pt2", Programs)
    with pytest.raises(InputError, match="its actions differ from torch's"):
        export_graphs(tmp_path / "out", tiny.loaded(), tiny.sample(), "pt2")


def test_an_engine_that_ended_a_process_is_not_tried_again(programs, cache, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "graphs"
    script = ("import sys; from pathlib import Path; from vla_ros.runtime.engines.engaged import survived\n"
              "with survived(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()")
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout.readline() == b"in\n"
    process.kill()
    process.communicate()
    with pytest.raises(InputError, match="the last process that tried it ended while it did; delete"), survived(folder):
        pass
    (folder / "trying").unlink()
    with survived(folder), survived(folder):  # two at a time
        assert (folder / "trying").exists()
    (folder / "trying").touch()

    def ends_meanwhile(file):
        (folder / "trying").unlink(missing_ok=True)
        return True

    with monkeypatch.context() as patch:
        patch.setattr("vla_ros.runtime.engines.engaged._locked", ends_meanwhile)
        with survived(folder):
            pass
    assert list(folder.iterdir()) == []
    loaded = tiny.loaded()
    warmed(loaded, "auto")
    (kept,) = cache.iterdir()
    (kept / "trying").touch()
    assert warmed(loaded, "auto").title.endswith("on cpu")
    assert f"delete {kept}/trying" in caplog.messages[-1]
    assert warmed(loaded, "programs").title.endswith("with programs")  # who asks for it gets it


def test_a_refusal_is_remembered_with_shapes_and_versions(programs, cache, monkeypatch, caplog):
    loaded, problem = tiny.loaded(), [OSError("no space left")]

    def write(graph, path, inputs, outputs):
        raise problem[0]

    monkeypatch.setattr(Programs, "write", write)
    for _ in range(2):  # what may be over by then is tried again
        assert warmed(loaded, "auto").title.endswith("on cpu")
        assert converted(caplog) == [("programs", "encode")] and "no space left" in caplog.messages[-1]
        caplog.clear()
    problem[0] = RuntimeError("No conversion rule for bent::product")
    warmed(loaded, "auto")
    assert converted(caplog) == [("programs", "encode")]
    first = caplog.messages[-1]
    caplog.clear()
    assert warmed(loaded, "auto").title.endswith("on cpu")
    (said,) = caplog.messages
    (file,) = cache.rglob("refused-*")
    assert said == f"{first} (tried before; delete {file} to try again)" and "bent::product" in said
    with pytest.raises(InputError, match="bent::product; expected engine torch$"):  # who asks for it gets it
        warmed(loaded, "programs")
    for change in (file.unlink, lambda: monkeypatch.setattr(Programs, "version", lambda: "2")):
        caplog.clear()
        change()
        warmed(loaded, "auto")
        assert converted(caplog) == [("programs", "encode")]


def test_auto_goes_on_with_torch_where_nothing_can_be_kept(programs, cache, caplog):
    cache.parent.mkdir(parents=True)
    cache.write_text("")
    assert warmed(tiny.loaded(), "auto").title.endswith("on cpu")
    assert "Not a directory" in caplog.messages[-1]


def test_auto_goes_on_with_torch_where_the_engine_cannot_be_imported(programs, monkeypatch, caplog):
    def version():
        raise ImportError("libtbb.so.12: cannot open shared object file")

    monkeypatch.setattr(Programs, "version", version)
    assert warmed(tiny.loaded(), "auto").title.endswith("on cpu")
    assert caplog.messages[-1] == ("engine auto: torch, since engine programs: libtbb.so.12: cannot open shared object "
                                   "file")
    with pytest.raises(InputError, match="libtbb.so.12: cannot open shared object file; expected engine torch"):
        warmed(tiny.loaded(), "programs")


def test_snippets_are_used_where_another_process_survives_them(tmp_path, monkeypatch):
    """The graph is one that ends OpenVINO 2026.4's process with snippets, unless its normalisation is written plainly.
    """
    if OpenVino.missing():
        pytest.skip("not installed")
    import openvino
    from openvino import opset13

    given = [opset13.parameter(shape, np.float32, name) for shape, name in (([2, 8, 3, 5], "x"), ([2, 8, 1, 1], "y"))]
    weights = [torch.linspace(low, 1.5, 8) for low in (0.5, -1)]
    norm = opset13.group_normalization(given[0], *(opset13.constant(each.numpy()) for each in weights), 4, 1e-5)
    model = openvino.Model([opset13.multiply(norm, opset13.add(given[1], np.float32(1))).output(0)], given, "scaled")
    for port, name in zip(model.inputs, "xy", strict=True):
        port.tensor.set_names({name})
    plain_norms(model)
    path = tmp_path / "graph.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    x, y = torch.randn(2, 8, 3, 5), torch.randn(2, 8, 1, 1)
    expected = torch.nn.functional.group_norm(x, 4, *weights) * (y + 1)
    compiled, compile_model = [], openvino.Core.compile_model
    monkeypatch.setattr(openvino.Core, "compile_model",
                        lambda self, *args: (compiled.append(args[-1]), compile_model(self, *args))[1])
    for program, snippets in (("/bin/false", False), ("", False), (sys.executable, True)):
        monkeypatch.setattr(backends.sys, "executable", program)
        OpenVino.rehearse(path)
        (found,) = OpenVino.load(path, ["x", "y"], 1)([x, y])
        assert torch.allclose(found, expected, atol=1e-5)
        assert ("SNIPPETS_MODE" not in compiled[-1]) == snippets


@pytest.mark.parametrize("options, said", [
    ({"engine": "tpu"}, "engine 'tpu', expected auto, torch, openvino, openvino_int8 or onnxruntime"),
    ({"engine": "openvino", "compile": True}, "engine openvino: compile is torch's own"),
    ({"engine": "openvino", "guided": True, "exact_guidance": True}, "engine openvino: rtc_exact needs gradients"),
])  # fmt: skip
def test_what_no_engine_does_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        PolicySession(tiny.loaded(), SessionOptions(**options))


def test_bfloat16_is_torchs(monkeypatch):
    loaded = tiny.loaded()
    loaded.policy.store_as(torch.bfloat16)
    with pytest.raises(InputError, match="it works in float32, the weights are bfloat16; expected dtype float32"):
        PolicySession(loaded, SessionOptions(engine="openvino"))
    assert PolicySession(loaded, SessionOptions(engine="auto")).title.endswith("on cpu")
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="no module openvino; expected: pip install -r requirements/engine.txt"):
        PolicySession(tiny.loaded(), SessionOptions(engine="openvino"))


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


def test_rows_of_eight_bits():
    weights = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    weights[5] = 0
    layer = torch.nn.Linear(32, 64, bias=False)
    layer.weight.data = weights.clone()
    policy = tiny.loaded().policy
    policy.layer, policy.head = layer, torch.nn.Linear(32, 64, bias=False)
    policy.float32 = (r"head\.",)
    copied = rounded(policy)
    assert torch.equal(layer.weight, weights) and torch.equal(copied.head.weight, policy.head.weight)
    found = copied.layer.weight
    assert ((found - weights).abs() <= weights.abs().amax(1, keepdim=True) / 254 * 1.001).all()
    for matrix in (found, found.t()):  # as torch keeps it, and as a converter may
        numbers, scale = whole(matrix.numpy())
        assert numbers.dtype == np.int8 and np.allclose(numbers * scale, matrix, rtol=1e-6, atol=0)
    assert whole(weights.numpy()) is None and whole(found[:16].numpy()) is None


@pytest.mark.parametrize("family, backend", [("pi0", OpenVinoInt8), ("robovlms", OnnxRuntime), ("act", TorchProgram)])
def test_a_policy_as_two_graphs(tmp_path, family, backend):
    if backend.missing():
        pytest.skip("not installed")
    form = {"onnxruntime": "onnx"}.get(backend.name, backend.name)
    loaded = fresh(family)
    words = export_graphs(tmp_path / "out", loaded, sample(loaded.processor), form)
    assert words.startswith(f"{form}: encode{backend.ending} and act{backend.ending}, actions as torch's to")
    if not backend.exact:
        difference, weights = float(words.split()[-6]), sum(p.numel() for p in loaded.policy.parameters())
        assert words.endswith("from those of float32 weights") and 1e-4 < difference < 0.05
        assert sum(file.stat().st_size for file in (tmp_path / "out").glob("*.bin")) < 3 * weights  # not 4
    said, known, expected = again(tmp_path / "out", backend)
    assert close(known["actions"].numpy(), expected.numpy())
    assert ("memory.window" in known) == (family == "robovlms")
    processor = said["processor"]
    assert processor["actions"]["statistics"]["std"] == pytest.approx([0.3] * 6)
    assert [each["joint"] for each in processor["embodiment"]["actions"]] == list(families.JOINTS)
    assert said["joints"] == list(families.JOINTS) and said["horizon"] == loaded.processor.horizon


def test_tensorrts_engine_is_built_where_its_program_is(tmp_path, monkeypatch):
    """Elsewhere the graphs are checked and the rest is said. The program is a stand-in: TensorRT needs a GPU."""
    if TensorRt.missing():
        pytest.skip("not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    words = export_graphs(tmp_path / "checked", tiny.loaded(), tiny.sample(), "tensorrt")
    assert "actions as torch's to" in words and "run `trtexec --onnx=encode.onnx --saveEngine=encode.plan`" in words
    _, known, expected = again(tmp_path / "checked", TensorRt)
    assert close(known["actions"].numpy(), expected.numpy())
    made = tmp_path / "checked"  # which takes seconds
    monkeypatch.setattr(OnnxRuntime, "write", lambda graph, path, *_: path.write_bytes((made / path.name).read_bytes()))
    program = tmp_path / "trtexec"
    program.write_text('#!/bin/sh\necho "$2" >"${2#--saveEngine=}"\n')
    program.chmod(0o755)
    assert "trtexec" not in export_graphs(tmp_path / "built", tiny.loaded(), tiny.sample(), "tensorrt")
    assert {file.name for file in (tmp_path / "built").glob("*.plan")} == {"encode.plan", "act.plan"}
    program.write_text('#!/bin/sh\necho "no GPU" >&2\nexit 1\n')
    with pytest.raises(InputError, match="encode of Rememberer cannot be converted: trtexec: no GPU"):
        export_graphs(tmp_path / "out", tiny.loaded(), tiny.sample(), "tensorrt")
    assert not (tmp_path / "out").exists()


def test_what_is_no_graph_is_refused_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match="act of Speaker stops depending on the values that it"):
        export_graphs(tmp_path / "out", tiny.loaded(tiny.Speaker), tiny.sample(), "pt2")
    monkeypatch.setattr(Programs, "factor", 1.01)
    monkeypatch.setitem(export_graphs.__globals__["FORMATS"], "pt2", Programs)
    with pytest.raises(InputError, match="its actions differ from torch's by .* nothing was written"):
        export_graphs(tmp_path / "out", tiny.loaded(), tiny.sample(), "pt2")
    assert vla_ros(["export", "x", "--to", "torchscript", "--output", str(tmp_path / "out")]) != 0
    assert "expected pt2" in capsys.readouterr().err
    assert vla_ros(["export", "x", "--to", "lerobot", "--num-steps", "3", "--output", str(tmp_path / "out")]) != 0
    assert "--num-steps with --to lerobot, expected neither or one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
