"""Our server, asked as openpi's client asks, and by those who mean harm."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace

import cv2
import families
import numpy as np
import pytest
import sensing_family
import sensors
import torch
from remote_servers import LONG, ROBOT, client, same, serving
from runtime import tiny_policy
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.server_file import Keys, ServerFile
from vla_ros.runtime.history import example_sample
from vla_ros.runtime.remote.client import Client
from vla_ros.runtime.remote.digest import digest
from vla_ros.runtime.remote.server import PolicyServer, ServerOptions
from vla_ros.runtime.remote.session import RemoteSession
from vla_ros.runtime.remote.wire import pack, unpack
from vla_ros.runtime.session import PolicySession


def plain(port: int, **options):
    """As openpi's client connects."""
    return connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, **options)


def observation(**changes) -> dict:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    return {"observation/front": image, "observation/wrist": image[::-1].copy(), "observation/state": np.full(6, 0.1),
            "prompt": families.INSTRUCTIONS[0]} | changes  # fmt: skip


def as_sample(message: dict, steps: int = 1) -> Sample:
    images = {name: np.stack([message[f"observation/{name}"]] * steps) for name in ROBOT.camera_names}
    return Sample(images, np.stack([message["observation/state"]] * steps), message["prompt"])


def ask(peer, message) -> dict:
    peer.send(pack(message))
    answer = peer.recv()
    assert isinstance(answer, bytes), answer
    return unpack(answer)


@pytest.fixture(scope="module")
def act():
    return families.fresh("act")


@pytest.fixture(scope="module")
def port(act):
    with serving(act) as port:
        yield port


def expected(policy, message: dict) -> np.ndarray:
    return PolicySession(policy).infer([as_sample(message)])[0].targets.parts[0].data


def test_an_observation_as_openpi_sends_it(act, port):
    message = observation()
    with plain(port) as peer:
        metadata = unpack(peer.recv())["vla_ros"]
        assert metadata["joints"] == list(ROBOT.joint_names) and metadata["step_dt"] == act.processor.step_dt
        answer = ask(peer, message)
        np.testing.assert_array_equal(answer["actions"], expected(act, message))
        assert 0 < answer["policy_timing"]["infer_ms"] < answer["server_timing"]["infer_ms"]
        assert ask(peer, message)["server_timing"]["prev_total_ms"] > 0
        # As LeRobot's datasets have them, whole numbers, lists, and bytes for a text.
        turned = {name: message[name].transpose(2, 0, 1) for name in ("observation/front", "observation/wrist")}
        turned |= {"observation/state": [0.1] * 6, "prompt": message["prompt"].encode(), "more": [1]}
        np.testing.assert_array_equal(ask(peer, message | turned)["actions"], answer["actions"])


def test_keys_of_another_layout(act):
    keys = Keys({"images.cam_high": "front", "images.cam_left_wrist": "wrist"},
                {"observation/joint_position": 5, "observation/gripper_position": 1}, "task", "result.rows", True)
    message, first = observation(), np.arange(6.0) / 10
    with serving(act, keys=keys) as port:
        with plain(port) as peer:
            peer.recv()
            images = {"cam_high": message["observation/front"].transpose(2, 0, 1),
                      "cam_left_wrist": message["observation/wrist"].transpose(2, 0, 1)}  # fmt: skip
            answer = ask(peer, {"images": images, "observation/joint_position": first[:5], "task": message["prompt"],
                                "observation/gripper_position": first[5]})  # fmt: skip
        wanted = expected(act, message | {"observation/state": first})
        np.testing.assert_array_equal(answer["result"]["rows"], wanted)
        remote = client(port)  # which the metadata tell
        (result,) = remote.infer([as_sample(message | {"observation/state": first})])
        np.testing.assert_array_equal(result.targets.parts[0].data, wanted)
        remote.close()
    for wrong, words in ((Keys({"a": "front"}), "expected each once"), (Keys(state={"a": 5}), "state of 5 numbers")):
        with pytest.raises(InputError, match=words):
            PolicyServer(act, ROBOT, keys=wrong)


def test_earlier_steps_are_the_questions_before():
    """Of a client that sends instants: a history over its own questions, anew with each prompt."""
    policy = families.fresh("diffusion")
    first, second = observation(), observation(**{"observation/state": np.full(6, -0.2)})
    both = Sample({name: np.stack([m[f"observation/{name}"] for m in (first, second)]) for name in ROBOT.camera_names},
                  np.stack([first["observation/state"], second["observation/state"]]), first["prompt"])  # fmt: skip
    policy.processor = _slow(policy.processor)  # so that no pause of this machine is a step
    local = PolicySession(policy)
    with serving(policy) as port, plain(port) as peer:
        peer.recv()
        for message, sample in ((first, as_sample(first, 2)), (second, both), (first, None)):
            answer = ask(peer, message)["actions"]
            if sample is not None:
                np.testing.assert_array_equal(answer, local.infer([sample])[0].targets.parts[0].data)
        other = first | {"prompt": families.INSTRUCTIONS[1]}
        local.infer([as_sample(first, 2)])  # its draws
        wanted = local.infer([as_sample(other, 2)])[0].targets.parts[0].data
        np.testing.assert_array_equal(ask(peer, other)["actions"], wanted)


def test_a_refused_question_is_no_earlier_step():
    policy, message = families.fresh("diffusion"), observation()
    policy.processor = replace(policy.processor, embodiment=replace(policy.processor.embodiment, step_dt=1e-3))
    with serving(policy) as port, plain(port) as peer:
        peer.recv()
        ask(peer, message)
        for _ in range(3):
            peer.send(pack(message | {"observation/state": np.full(6, np.nan)}))
            assert "expected a finite number" in peer.recv()
            ask(peer, message)


def _slow(processor):
    return replace(processor, embodiment=replace(processor.embodiment, step_dt=600.0))


@pytest.mark.parametrize("changes, words", [
    ({"prompt": None}, "'prompt': None, expected a text"), ({"prompt": 3}, "'prompt': 3"),
    ({"prompt": "x" * 10_001}, "limit 10000"), ({"observation/front": None}, "no 'observation/front'"),
    ({"observation/front": "path"}, "'path', expected an image"), ({"observation/front": b"\xff\xd8"}, "not a JPEG"),
    ({"observation/front": np.zeros((4, 4, 3))}, "float64"),
    ({"observation/front": np.zeros((4, 4), np.uint8)}, "(4, 4)"),
    ({"observation/front": np.zeros((4, 4, 4), np.uint8)}, "three channels"),
    ({"observation/front": np.zeros((0, 4, 3), np.uint8)}, "expected an image"),
    ({"observation/front": np.zeros((1, 4, 4, 3), np.uint8)}, "expected an image"),
    ({"observation/state": np.zeros(7)}, "expected 6 numbers"), ({"observation/state": None}, "None"),
    ({"observation/state": np.full(6, np.nan)}, "expected a finite number"),
    ({"observation/state": np.zeros((1, 6))}, "(1, 6)"), ({"observation/state": ["a"] * 6}, "expected 6 numbers"),
    ({"vla_ros": 3}, "expected number and stamp_ns"), ({"vla_ros": {"number": 1, "stamp_ns": 0}}, "expected 1 images"),
    ({"vla_ros": {"number": 1, "stamp_ns": 0.5}}, "expected number"),
], ids=lambda _: "question")  # fmt: skip
def test_a_question_that_does_not_fit_is_answered_in_one_line(port, changes, words):
    with plain(port) as peer:
        peer.recv()
        peer.send(pack(observation(**changes)))
        answer = peer.recv()
        assert isinstance(answer, str) and words in answer and "\n" not in answer
        assert "actions" in ask(peer, observation())  # and the connection goes on


@pytest.mark.parametrize("frame", [b"", b"\x80\x04N.", b"\xc1" * 1000, "text", "", pack([]), pack(None), pack("text")],
                         ids=lambda _: "frame")
def test_what_is_no_question_is_answered_in_one_line(port, frame):
    with plain(port) as peer:
        peer.recv()
        peer.send(frame)
        answer = peer.recv()
        assert isinstance(answer, str) and answer and "\n" not in answer


def test_jpeg_bombs_are_not_opened(port):
    bomb = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    place = bomb.index(b"\xff\xc0")
    bomb[place + 5 : place + 9] = b"\xff\xff\xff\xff"  # 65535 x 65535
    with plain(port) as peer:
        peer.recv()
        peer.send(pack(observation(**{"observation/front": bytes(bomb)})))
        assert "compressed image" in peer.recv()


def test_further_sensors_travel_too(tmp_path):
    """Readings of other shapes and types, a mask, a window, the last command; texts do not, and say so."""
    robot = sensors.robot()
    with pytest.raises(InputError, match="stream 'mode' holds texts"):
        PolicyServer(sensing_family.load(tmp_path, "vla_ros", None), robot)
    policy = sensing_family.load(tmp_path, "vla_ros", None)
    policy.processor = _Mute()
    one = example_sample(robot, policy.processor)
    rng = np.random.default_rng(0)
    values = {name: rng.integers(0, 2, value.shape).astype(value.dtype) for name, value in one.values.items()}
    one = Sample(one.images, one.state + 0.1, "go", values=values)
    with serving(policy, robot=robot) as port:
        remote = RemoteSession(ServerFile(f"ws://127.0.0.1:{port}", deadline=LONG), robot)
        same(remote.infer([one])[0], PolicySession(policy).infer([one])[0])
        remote.close()
        name = next(name for name in values if name.startswith("imu"))
        with plain(port) as peer:
            peer.recv()
            peer.send(pack({"observation/front": one.images["front"][0], "observation/state": one.state[0],
                            "prompt": "go", "observation/imu": values[name][0, ..., :1]}))  # fmt: skip
            assert "'observation/" in (said := peer.recv()) and "expected" in said


class _Mute(sensing_family.Reader):
    """Without the stream of texts."""

    streams = tuple(name for name in sensing_family.STREAMS if name != "mode")

    def steps(self, training=False):
        return {name: offsets for name, offsets in super().steps().items() if name != "mode"}

    def inputs(self, samples):
        texts = {"mode": np.array([["go"]])}
        return super().inputs([replace(sample, values={**sample.values, **texts}) for sample in samples])


def test_frames_that_are_too_large_end_that_connection_alone(act):
    with serving(act) as port, plain(port) as other:
        other.recv()
        with plain(port) as peer:
            peer.recv()
            with pytest.raises((ConnectionClosed, OSError)):
                peer.send(bytes(20 << 20))
                peer.recv()
        assert "actions" in ask(other, observation())


def test_a_token_and_the_road_in(act):
    with serving(act, token="secret") as port:
        for header in (None, {"Authorization": "Api-Key wrong"}, {"Authorization": "Basic secret"},
                       {"Authorization": "secret"}, {"Authorization": "Api-Key"}):
            with pytest.raises(InvalidStatus) as error:
                plain(port, additional_headers=header)
            assert error.value.response.status_code == 401
        for header in ({"Authorization": "Api-Key secret"}, {"Authorization": "Bearer secret"}):
            with plain(port, additional_headers=header) as peer:
                assert "vla_ros" in unpack(peer.recv())
        with pytest.raises(InvalidStatus) as error:  # a page in somebody's browser
            plain(port, origin="http://example.org", additional_headers={"Authorization": "Api-Key secret"})
        assert error.value.response.status_code == 403
        with pytest.raises(InvalidStatus) as error:
            connect(f"ws://127.0.0.1:{port}/healthz")
        assert error.value.response.status_code == 200


def test_our_client_sends_its_token(act, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    with serving(act, token="secret") as port:
        remote = client(port, token_file=str(token))
        assert remote.infer([as_sample(observation())])
        remote.close()
        with pytest.raises(InputError, match="status 401, expected its token"):
            client(port)
    for text in ("", "\n\n", "two words", "grün"):
        token.write_text(text)
        with pytest.raises(InputError, match="token file"):
            client(1, token_file=str(token))


def test_no_more_clients_than_the_limit(act):
    with serving(act, clients=2) as port, ExitStack() as stack:
        peers = [stack.enter_context(plain(port)) for _ in range(2)]
        for peer in peers:
            peer.recv()
        with plain(port) as third, pytest.raises(ConnectionClosed, match="2 clients, which is the limit"):
            third.recv(timeout=LONG)
        with pytest.raises(InputError, match="the connection was closed, code 1013: 2 clients"):
            client(port)
        peers[0].close()
        remote = _client_when_there_is_room(port)
        remote.close()


def _client_when_there_is_room(port: int) -> RemoteSession:
    while True:
        with suppress(InputError):
            return client(port)


def test_a_terminal_that_is_gone_ends_no_client(act):
    def gone(text):
        raise BrokenPipeError(text)

    with serving(act, say=gone) as port, plain(port) as peer:
        peer.recv()
        peer.send(pack(observation(prompt=3)))  # refusals are told, too
        assert "3, expected a text" in peer.recv()
        assert "actions" in ask(peer, observation())


def test_strangers_do_not_end_it(act):
    """Garbage in place of a handshake, connections that say nothing, that end within a frame, that never read."""
    told = []
    with serving(act, say=told.append) as port, ExitStack() as stack:
        for text in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"A" * 100_000, b"GET /healthz HTTP/1.1"):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            with suppress(OSError):
                peer.sendall(text)
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(50)]
        assert len(silent) == 50
        half = stack.enter_context(plain(port))
        half.recv()
        half.socket.sendall(b"\x82\xff" + (1 << 20).to_bytes(8, "big") + b"\0" * 1000)
        deaf = stack.enter_context(plain(port))
        for _ in range(20):  # and never reads
            deaf.send(pack(observation()))
        remote = client(port)
        one = as_sample(observation())
        same(remote.infer([one])[0], PolicySession(act).infer([one])[0])
        half.socket.close()
        remote.infer([one])
        remote.close()
    assert len(told) < 100


def test_a_mistake_of_ours_is_told_and_the_others_are_served(act, monkeypatch):
    told = []
    answer = Client.answer

    def wrong(self, frame, began):
        if b"break it" in frame:
            raise RuntimeError("a bug")
        return answer(self, frame, began)

    monkeypatch.setattr(Client, "answer", wrong)
    with serving(act, say=told.append) as port, plain(port) as other:
        other.recv()
        with plain(port) as peer:
            peer.recv()
            peer.send(pack(observation(prompt="break it")))
            assert peer.recv() == "internal error: RuntimeError: a bug"
            with pytest.raises(ConnectionClosed):
                peer.recv()
        assert "actions" in ask(other, observation())
    assert any("a bug" in text and "Traceback" in text for text in told)


def test_who_comes_back_finds_a_warm_session_that_remembers_nothing(monkeypatch):
    """Of a policy that remembers, whoever was there before; no session is made while clients wait."""
    policy, made = tiny_policy.loaded(), []
    warm_up = PolicySession.warm_up
    monkeypatch.setattr(PolicySession, "warm_up", lambda self, one: made.append(self) or warm_up(self, one))
    with serving(policy, robot=tiny_policy.robot(), clients=4) as port:
        assert len(made) == 4
        remote = RemoteSession(ServerFile(f"ws://127.0.0.1:{port}", deadline=LONG), tiny_policy.robot())
        for first in range(4):
            local = PolicySession(policy)
            for k in (first, first + 1):
                same(remote.infer([tiny_policy.sample(k)])[0], local.infer([tiny_policy.sample(k)])[0])
            remote._connection.give_up()
        remote.close()
    assert len(made) == 4


def test_metadata_come_while_another_client_is_answered(act, monkeypatch):
    asked, go_on, answer = threading.Event(), threading.Event(), Client.answer

    def slow(self, frame, began):
        asked.set()
        go_on.wait()
        return answer(self, frame, began)

    monkeypatch.setattr(Client, "answer", slow)
    with serving(act) as port, ExitStack() as stack:
        stack.callback(go_on.set)
        first, second = (stack.enter_context(plain(port)) for _ in range(2))
        first.recv()
        first.send(pack(observation()))
        asked.wait()
        assert "vla_ros" in unpack(second.recv(timeout=LONG))
        go_on.set()
        assert "actions" in unpack(first.recv())


def test_a_question_whose_asker_is_gone_is_left_out(act, monkeypatch):
    asked, go_on, answer, answered = threading.Event(), threading.Event(), Client.answer, []

    def slow(self, frame, began):
        answered.append(unpack(frame)["prompt"])
        asked.set()
        go_on.wait()
        return answer(self, frame, began)

    monkeypatch.setattr(Client, "answer", slow)
    with serving(act) as port, ExitStack() as stack:
        stack.callback(go_on.set)
        first = stack.enter_context(plain(port))
        first.recv()
        first.send(pack(observation()))
        asked.wait()
        with plain(port) as gone:
            gone.recv()
            gone.send(pack(observation(prompt="never mind")))
        go_on.set()  # the server has agreed to the closing
        assert "actions" in unpack(first.recv()) and "actions" in ask(first, observation())
    assert answered == [observation()["prompt"]] * 2


def test_time_in_the_queue_is_the_servers(act):
    with PolicyServer(act, ROBOT)._client() as one:
        timing = unpack(one.answer(pack(observation()), time.monotonic() - 100.0))["server_timing"]
    assert timing["infer_ms"] > 100e3


def test_an_observation_is_of_when_it_arrived():
    """Not of when its turn came: a policy that remembers counts steps."""
    message = {"observation/front": np.zeros((4, 6, 3), np.uint8), "observation/state": np.zeros(2), "prompt": "go"}
    with PolicyServer(tiny_policy.loaded(), tiny_policy.robot(), options=ServerOptions(clients=1))._client() as one:
        for began in (100.0, 100.4):
            one.answer(pack(message), began)
        assert one._session._stamps == [100_400_000_000]


def test_the_digest_is_the_checkpoints():
    """Other weights, other statistics or units: another; the same loaded again: the same."""
    one, again, other = (families.fresh("act") for _ in range(3))
    assert digest(one) == digest(again) != digest(families.fresh("pi0"))
    with torch.no_grad():
        next(other.policy.parameters()).mul_(1.01)
    scaled = _slow(again.processor)
    assert len({digest(one), digest(other), digest(replace(again, processor=scaled))}) == 3
    assert PolicyServer(one, ROBOT).described != PolicyServer(other, ROBOT).described


def test_a_busy_port_is_named(act, port):
    with pytest.raises(InputError, match=f"127.0.0.1:{port}: .*free port"), serving(act, port):
        pass


def test_wss(act, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    one = as_sample(observation())
    with serving(act, tls=tls) as port:
        url = f"wss://127.0.0.1:{port}"
        remote = RemoteSession(ServerFile(url, certificate=str(certificate), deadline=LONG), ROBOT)
        same(remote.infer([one])[0], PolicySession(act).infer([one])[0])
        remote.close()
        with pytest.raises(InputError, match="TLS: self-signed certificate.*; expected a certificate"):
            RemoteSession(ServerFile(url), ROBOT)
        with pytest.raises(InputError):
            client(port)
        with pytest.raises(InputError, match="certificate .*, expected a PEM file"):
            RemoteSession(ServerFile(url, certificate=str(tmp_path / "none.pem")), ROBOT)
