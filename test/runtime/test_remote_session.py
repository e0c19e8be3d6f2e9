"""A policy on another machine: our client beside our server, and beside servers that go wrong."""

import base64
import hashlib
import re
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import families
import numpy as np
import pytest
from remote_servers import LONG, ROBOT, client, same, scripted, serving
from runtime.tiny_policy import loaded as remembering
from runtime.tiny_policy import robot, sample
from websockets.sync.client import connect

from vla_ros.core.errors import InputError, NotYet
from vla_ros.core.observation import Sample
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.registry import load
from vla_ros.policies.server_file import Keys, ServerFile, read_server
from vla_ros.runtime.remote.session import RemoteSession
from vla_ros.runtime.remote.wire import pack, unpack
from vla_ros.runtime.serving import check_robot, open_server, open_session
from vla_ros.runtime.session import PolicySession, SessionOptions

STEP = 100_000_000  # ns


def test_joints_in_another_order_and_cameras_of_another_size():
    policy = families.fresh("act")
    turned = replace(ROBOT, joints=ROBOT.joints[::-1])
    one = families.sample(policy.processor)
    with serving(policy) as port:
        remote = RemoteSession(ServerFile(f"ws://127.0.0.1:{port}", deadline=LONG), turned)
        check_robot(remote.processor, turned)
        (result,) = remote.infer([Sample(one.images, one.state[:, ::-1], one.instruction)])
        same(result, PolicySession(policy).infer([one])[0])
        remote.close()
        # Sent at the policy's own size an image stays what it is; as JPEG nearly so.
        sized = client(port, image_size=(families.SIDE, families.SIDE))
        same(sized.infer([one])[0], result)
        flat = Sample({name: np.full_like(image, 130) for name, image in one.images.items()}, one.state, "go")
        squeezed, plain = client(port, images="jpeg"), client(port)
        np.testing.assert_allclose(
            squeezed.infer([flat])[0].targets.parts[0].data, plain.infer([flat])[0].targets.parts[0].data, atol=1e-3
        )
        for session in (sized, squeezed, plain):
            session.close()


def test_two_clients_of_a_policy_that_remembers_do_not_mix():
    policy = remembering()
    with serving(policy, robot=robot()) as port:
        both = [RemoteSession(ServerFile(f"ws://127.0.0.1:{port}", deadline=LONG), robot()) for _ in range(2)]
        alone = [PolicySession(policy) for _ in range(2)]
        for k in range(3):
            for b, (remote, local) in enumerate(zip(both, alone, strict=True)):
                one = sample(10 * b + k)
                same(remote.infer([one])[0], local.infer([one])[0])
        for remote in both:
            remote.close()


def test_a_beginning_makes_the_answer_under_way_stale():
    asked, go_on = threading.Event(), threading.Event()

    def handle(connection):
        connection.send(pack({}))
        for _ in connection:
            asked.set()
            go_on.wait()
            connection.send(pack({"actions": np.zeros((2, 6))}))

    with scripted(handle) as port, ExitStack() as stack:
        stack.callback(go_on.set)
        remote = RemoteSession(_described_by_file(port), ROBOT)
        found = []
        thread = threading.Thread(target=lambda: found.extend(remote.infer([_sample()])))
        thread.start()
        asked.wait()
        remote.begin()
        go_on.set()
        thread.join()
        assert found[0].stale and not remote.infer([_sample()])[0].stale
        assert found[0].flight_time == 0.0  # this server does not say how long it took
        remote.close()


def _sample() -> Sample:
    images = {name: np.zeros((1, 8, 8, 3), np.uint8) for name in ROBOT.camera_names}
    return Sample(images, np.arange(6.0)[None] / 10, "touch the red cube")


def _described_by_file(port: int, **changes) -> ServerFile:
    embodiment = Embodiment.identity(
        ROBOT.joint_names, {"observation/image": "front", "observation/wrist_image": "wrist"}, 0.1)
    return ServerFile(f"ws://127.0.0.1:{port}", embodiment=embodiment, **{"deadline": LONG} | changes)


# Servers that go wrong


def once(answer):
    """A server whose answer to each question is `answer`, bytes or text."""

    def handle(connection):
        connection.send(pack({}))
        for _ in connection:
            connection.send(answer)

    return handle


@pytest.mark.parametrize("answer, words", [
    ("Traceback (most recent call last):\n  File x\nKeyError: 'prompt'\n\n", "with an error: KeyError: 'prompt'"),
    ("", "an empty text"),
    (b"", "no msgpack"), (b"\x80\x04N.", "no msgpack"), (pack([1]), "no 'actions'"), (pack({}), "no 'actions'"),
    (pack({"action": np.zeros((2, 6))}), "no 'actions' in its answer, which has"),
    (pack({"actions": [[0.0] * 6]}), "expected numbers of shape (rows, 6)"),
    (pack({"actions": np.zeros((2, 7))}), "(2, 7), expected (1 to 10000, 6)"),
    (pack({"actions": np.zeros((0, 6))}), "(0, 6), expected"), (pack({"actions": np.zeros(6)}), "shape (6,)"),
    (pack({"actions": np.zeros((1, 2, 6))}), "shape (1, 2, 6)"), (pack({"actions": np.zeros((2, 6), bool)}), "bool"),
    (pack({"actions": np.zeros((10001, 6), np.int8)}), "10001"),
    (pack({"actions": np.array([[0, 0, np.nan, 0, 0, 0]])}), "row 0, column 2 is nan"),
    (pack({"actions": np.full((1, 6), np.inf, np.float16)}), "is inf"),
], ids=lambda _: "answer")  # fmt: skip
def test_an_answer_that_is_no_chunk_is_refused_in_one_line(answer, words):
    with scripted(once(answer)) as port:
        remote = RemoteSession(_described_by_file(port), ROBOT)
        with pytest.raises(InputError) as error:
            remote.infer([_sample()])
        assert words in str(error.value) and str(error.value).startswith(f"server ws://127.0.0.1:{port}: ")
        assert "\n" not in str(error.value)
        remote.close()


def test_no_answer_within_the_deadline_then_one():
    """The late answer of the first question is never taken for that of the second."""
    questions, hold, slow = [], threading.Event(), [True]

    def handle(connection):
        connection.send(pack({}))
        for question in connection:
            questions.append(unpack(question)["observation/state"][0])
            if slow[0]:
                hold.wait()
            connection.send(pack({"actions": np.full((2, 6), questions[-1])}))

    with scripted(handle) as port, ExitStack() as stack:
        stack.callback(hold.set)
        remote = RemoteSession(_described_by_file(port, deadline=0.2), ROBOT)
        with pytest.raises(NotYet, match=r"no answer within 0\.2 s"):
            remote.infer([_sample()])
        slow[0] = False
        remote.file = _described_by_file(port)
        hold.set()
        later = Sample(_sample().images, np.full((1, 6), 0.25), "go")
        (result,) = remote.infer([later])
        assert (result.targets.parts[0].data == 0.25).all() and questions == [0.0, 0.25]
        remote.close()


@contextmanager
def deaf():
    """A server that greets each connection and reads nothing more; its port."""
    listener, held = socket.create_server(("127.0.0.1", 0)), []
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def greet() -> None:
        with suppress(OSError):
            while True:
                held.append(listener.accept()[0])
                key = re.search(rb"Sec-WebSocket-Key: (\S+)", held[-1].recv(4096)).group(1)
                accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                held[-1].send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n\x82\x01\x80")  # fmt: skip

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in (listener, *held):
            one.close()


def test_a_peer_that_does_not_read_holds_nobody():
    """More than the buffers of both sockets hold; and the session still ends."""
    with deaf() as port:
        remote = RemoteSession(_described_by_file(port, deadline=0.3), ROBOT)
        large = Sample({name: np.zeros((1, 1500, 2000, 3), np.uint8) for name in ROBOT.camera_names},
                       np.zeros((1, 6)), "go")  # fmt: skip
        for _ in range(2):
            with pytest.raises(NotYet, match=r"no answer within 0\.3 s"):
                remote.infer([large])
        remote.close()


def test_a_frame_that_nobody_asked_for_ends_the_connection():
    connections, told = [], threading.Event()

    def handle(connection):
        connections.append(connection)
        connection.send(pack({}))
        for _ in connection:
            connection.send(pack({"actions": np.full((1, 6), float(len(connections)))}))
            if len(connections) == 1:
                connection.send(pack({"actions": np.full((1, 6), 99.0)}))
                told.set()

    with scripted(handle) as port:
        remote = RemoteSession(_described_by_file(port), ROBOT)
        assert remote.infer([_sample()])[0].targets.parts[0].data[0, 0] == 1
        told.wait()
        _until(lambda: remote._connection._socket is None)
        assert remote.infer([_sample()])[0].targets.parts[0].data[0, 0] == 2
        remote.close()


def _until(condition) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_answer_to_another_question_is_dropped():
    """Servers of ours say which question an answer belongs to."""
    policy = families.fresh("act")
    recorded = []
    with serving(policy) as port:
        with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as peer:
            metadata = peer.recv()

    def handle(connection):
        connection.send(metadata)
        for question in connection:
            recorded.append(unpack(question)["vla_ros"])
            number = recorded[-1]["number"] - (len(recorded) == 1)
            connection.send(pack({"actions": np.zeros((policy.processor.horizon, 6)), "vla_ros": {"number": number}}))

    with scripted(handle) as port:
        remote = client(port)
        one = families.sample(policy.processor)
        with pytest.raises(InputError, match="an answer to question 0, expected 1"):
            remote.infer([one])
        remote.infer([one])  # over a new connection
        remote.infer([one])
        # An episode begins, and draws start anew, until a question was answered.
        assert [(row["begin"], row["seed"]) for row in recorded] == [(True, 0)] * 2 + [(False, None)]
        remote.close()


def test_a_server_that_is_lost_and_comes_back():
    policy = families.fresh("act")
    one = families.sample(policy.processor)
    with serving(policy) as port:
        remote = client(port)
        (first,) = remote.infer([one])
    for _ in range(3):
        with pytest.raises(NotYet, match="Connection refused"):
            remote.infer([one])
    with serving(policy, port):
        _until(lambda: _answers(remote, one))
        same(remote.infer([one])[0], first)
    with serving(families.fresh("pi0"), port):
        _until(lambda: "another policy" in _refusal(remote, one))
    with scripted(lambda connection: connection.send("no metadata"), port):
        _until(lambda: "no msgpack" in _refusal(remote, one))
    with scripted(lambda connection: connection.close(1011, "out of memory"), port):
        _until(lambda: "code 1011: out of memory" in _refusal(remote, one))
    remote.close()


def _answers(remote, one) -> bool:
    try:
        return bool(remote.infer([one]))
    except NotYet:
        return False


def _refusal(remote, one) -> str:
    with pytest.raises(InputError) as error:
        remote.infer([one])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("metadata, words", [
    (pack({}), "does not describe itself"), (pack({"reset_pose": [0.0]}), "does not describe itself"),
    (pack([]), "does not describe itself"), (pack({"vla_ros": 3}), "expected a mapping"),
    (pack({"vla_ros": {"policy": "pi0"}}), "missing"), (b"\xc1", "metadata: 1 bytes are no msgpack"),
    ("text", "metadata"), (pack({"vla_ros": {"policy": "x", "joints": [], "keys": {}, "streams": {}, "steps": {},
                                             "step_dt": 0.0, "horizon": 1, "parts": []}}), "step_dt 0.0"),
], ids=lambda _: "metadata")  # fmt: skip
def test_metadata_that_describe_no_policy(metadata, words):
    def handle(connection):
        connection.send(metadata)
        for _ in connection:
            pass

    with scripted(handle) as port, pytest.raises(InputError) as error:
        client(port)
    assert words in str(error.value) and str(error.value).startswith("server ws://") and "\n" not in str(error.value)


def test_what_is_no_policy_server_is_named():
    def refuse(connection, request):
        return connection.respond(307, "elsewhere")

    with scripted(lambda connection: None, process_request=refuse) as port:
        with pytest.raises(InputError, match="status 307"):
            client(port)
    for url in ("ws://127.0.0.1:notaport", "ws://", "ws://[", "ws://a:99999", "ws://user@a", "ws://a b", "ws:a", "a:1"):
        with pytest.raises(InputError, match="expected ws://HOST:PORT"):
            ServerFile(url)
    with pytest.raises(NotYet, match="server ws://127.0.0.1:1: "):
        RemoteSession(ServerFile("ws://127.0.0.1:1"), ROBOT)


def test_what_a_server_decides_is_refused_here():
    for name, options in (
        ("device 'cpu'", {"device": "cpu"}), ("dtype 'bfloat16'", {"dtype": "bfloat16"}),
        ("tokenizer 'x'", {"tokenizer": "x"}), ("num_steps 3", {"options": SessionOptions(num_steps=3)}),
        ("compile True", {"options": SessionOptions(compile=True)}), ("rtc", {"options": SessionOptions(guided=True)}),
    ):
        with pytest.raises(InputError, match=name):
            open_server(ServerFile("ws://127.0.0.1:1"), ROBOT, **options)
    with scripted(once(pack({}))) as port:
        with pytest.raises(InputError, match="seed 3: only servers of ours"):
            RemoteSession(_described_by_file(port), ROBOT, seed=3)
        with pytest.raises(InputError, match="images jpeg"):
            RemoteSession(_described_by_file(port, images="jpeg"), ROBOT)


# Servers that a policy file describes


LAYOUTS = {
    "droid": """
keys: {state: {observation/joint_position: 5, observation/gripper_position: 1}}
image_size: [224, 224]
cameras: {observation/exterior_image_1_left: front, observation/wrist_image_left: wrist}
""",
    "aloha": """
keys: {state: {state: 6}, channels_first: true}
image_size: [224, 224]
cameras: {images.cam_high: front, images.cam_left_wrist: wrist, images.cam_right_wrist: null}
""",
    "libero": "cameras: {observation/image: front, observation/wrist_image: wrist}\n",
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_policy_files_for_the_key_layouts_of_openpi(layout, tmp_path):
    """What such a server sees, and what becomes of its actions: units and signs of the policy file count."""
    seen = []

    def handle(connection):
        connection.send(pack({"reset_pose": [0.0]}))
        for question in connection:
            seen.append(unpack(question))
            answer = {"actions": np.tile(np.float32([10, 0, 0, 0, 0, 50]), (3, 1)), "server_timing": {"infer_ms": 0.01}}
            connection.send(pack(answer))

    joints = [{"joint": name, "unit": "degrees"} for name in ROBOT.joint_names[:5]]
    with scripted(handle) as port:
        path = tmp_path / "server.yaml"
        path.write_text(f"server: ws://127.0.0.1:{port}\nstep_dt: 0.05\ndeadline: 60\n{LAYOUTS[layout]}\nstate: "
                        f"{[*joints, {'joint': 'gripper', 'scale': 100.0}]}\n")  # fmt: skip
        remote = open_session(path, ROBOT)
        one = Sample(_sample().images | {"front": np.full((1, 30, 40, 3), 200, np.uint8)},
                     np.full((1, 6), np.pi / 18), "touch it")  # fmt: skip
        (result,) = remote.infer([one])
        remote.close()
    message = seen[-1]
    assert message["prompt"] == "touch it" and "vla_ros" not in message
    expected = np.array([10.0] * 5 + [100 * np.pi / 18])
    if layout == "droid":
        assert set(message) == {"observation/exterior_image_1_left", "observation/wrist_image_left", "prompt",
                                "observation/joint_position", "observation/gripper_position"}  # fmt: skip
        state = np.concatenate([message["observation/joint_position"], message["observation/gripper_position"]])
        image = message["observation/exterior_image_1_left"]
        assert image.shape == (224, 224, 3) and (image[:28] == 0).all() and (image[28:-28] == 200).all()
    elif layout == "aloha":
        assert set(message) == {"state", "images", "prompt"} and set(message["images"]) == {"cam_high",
                                                                                           "cam_left_wrist"}
        state, image = message["state"], message["images"]["cam_high"]
        assert image.shape == (3, 224, 224) and image.dtype == np.uint8
    else:
        state, image = message["observation/state"], message["observation/image"]
        assert image.shape == (30, 40, 3)
    np.testing.assert_allclose(state, expected)
    (part,) = result.targets.parts
    np.testing.assert_allclose(part.data, np.tile([np.pi / 18, 0, 0, 0, 0, 0.5], (3, 1)))
    assert remote.processor.step_dt == 0.05 and result.flight_time > 0


@pytest.mark.parametrize("text, words", [
    ("server: http://a", "expected ws://HOST:PORT"), ("server: 3", "expected a string"),
    ("server: ws://a:1\ndeadline: 0", "0.01 to 3600"), ("server: ws://a:1\nimages: png", "raw or jpeg"),
    ("server: ws://a:1\ncertificate: c.pem", "has no TLS"), ("server: ws://a:1\nimage_fit: exactly", "expected one of"),
    ("server: ws://a:1\ncheckpoint: c\ncameras: {}\nstate: []", "unknown field"),
    ("server: ws://a:1\nkeys: {state: {a: 2}}", "missing"), ("server: ws://a:1\nstep_dt: 0.1", "step_dt alone"),
    ("server: ws://a:1\nkeys: {gripper: a}", "keys.gripper: unknown field"),
    ("server: ws://a:1\ncameras: {a: front}\nstate: [gripper]", "missing step_dt"),
], ids=lambda _: "file")  # fmt: skip
def test_a_policy_file_with_a_server_that_is_wrong(text, words, tmp_path):
    path = tmp_path / "server.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_server(path)
    assert words in str(error.value) and str(path) in str(error.value)


def test_keys_and_state_of_a_policy_file_must_agree():
    with scripted(once(pack({}))) as port:
        with pytest.raises(InputError, match="4 numbers, expected 6"):
            RemoteSession(_described_by_file(port, keys=Keys(state={"a": 4})), ROBOT)
        with pytest.raises(InputError, match="keys.cameras"):
            RemoteSession(_described_by_file(port, keys=Keys(cameras={"a": "front"})), ROBOT)


def test_where_weights_are_needed_a_server_is_refused(tmp_path):
    path = tmp_path / "server.yaml"
    path.write_text("server: ws://a:1")
    for named in ("ws://a:1", "wss://a:1", path):
        with pytest.raises(InputError, match="weights are needed"):
            load(named)
