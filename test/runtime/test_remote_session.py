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
from remote_servers import LONG, ROBOT, client, described_by_file, once, same, scripted, serving
from runtime.tiny_policy import loaded as remembering
from runtime.tiny_policy import robot, sample
from websockets.sync.client import connect

from vla_ros.core.errors import InputError, NotYet
from vla_ros.core.observation import Sample
from vla_ros.policies.server_file import ServerFile
from vla_ros.runtime.remote.connection import _system
from vla_ros.runtime.remote.session import RemoteSession
from vla_ros.runtime.remote.wire import pack, unpack
from vla_ros.runtime.serving import check_robot, open_server, open_session
from vla_ros.runtime.session import PolicySession, SessionOptions


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
        remote = RemoteSession(described_by_file(port), ROBOT)
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


def test_time_on_the_network_is_neither_that_of_the_question_nor_of_a_new_connection(monkeypatch):
    def handle(connection):
        connection.send(pack({}))
        for _ in connection:
            connection.send(pack({"actions": np.zeros((2, 6)), "server_timing": {"infer_ms": 1e-6}}))

    ahead = [0.0]  # s of a clock that steps on
    counted = time.perf_counter

    def slow(function):
        return lambda given: (ahead.append(ahead.pop() + 1000.0), function(given))[1]

    with scripted(handle) as port:
        remote = RemoteSession(described_by_file(port), ROBOT)
        monkeypatch.setattr(time, "perf_counter", lambda: counted() + ahead[0])
        remote.processor.request = slow(remote.processor.request)
        remote._connection._greet = slow(remote._connection._greet)
        remote._connection.give_up()
        (result,) = remote.infer([_sample()])
        assert 0 < result.flight_time < 1000 and result.total_time >= 2000
        remote.close()


def test_seeds_of_server_and_client_both_count():
    policy = families.fresh("pi0")
    one = families.sample(policy.processor)
    with serving(policy, session=SessionOptions(seed=7)) as port:
        for seed in (0, 3):
            remote = RemoteSession(ServerFile(f"ws://127.0.0.1:{port}", deadline=LONG), ROBOT, seed)
            same(remote.infer([one])[0], PolicySession(policy, SessionOptions(seed=7 + seed)).infer([one])[0])
            remote.close()
        remote = RemoteSession(ServerFile(f"ws://127.0.0.1:{port}", deadline=LONG), ROBOT, 1 << 62)
        with pytest.raises(InputError, match="seed 4611686018427387904, expected 0 to"):
            remote.infer([one])
        remote.close()


def _sample() -> Sample:
    images = {name: np.zeros((1, 8, 8, 3), np.uint8) for name in ROBOT.camera_names}
    return Sample(images, np.arange(6.0)[None] / 10, "touch the red cube")


# Servers that go wrong


@pytest.mark.parametrize("answer, words", [
    ("Traceback (most recent call last):\n  File x\nKeyError: 'prompt'\n\n", "with an error: KeyError: 'prompt'"),
    ("", "an empty text"), ("\n" * (1 << 20), "an empty text"), ("x\x1b[2J" * (1 << 20), r"x\x1b[2Jx\x1b[2J"),
    (b"", "not a msgpack"), (b"\x80\x04N.", "not a msgpack"), (pack([1]), "no 'actions'"), (pack({}), "no 'actions'"),
    (pack({"action": np.zeros((2, 6))}), "no 'actions' in its answer, which has"),
    (pack({"actions": [[0.0] * 6]}), "expected numbers of shape (rows, 6)"),
    (pack({"actions": np.zeros((2, 7))}), "(2, 7), expected (1 to 10000, 6)"),
    (pack({"actions": np.zeros((0, 6))}), "(0, 6), expected"), (pack({"actions": np.zeros(6)}), "shape (6,)"),
    (pack({"actions": np.zeros((1, 2, 6))}), "shape (1, 2, 6)"), (pack({"actions": np.zeros((2, 6), bool)}), "bool"),
    (pack({"actions": np.zeros((10001, 6), np.int8)}), "10001"),
    (pack({"actions": np.array([[0, 0, np.nan, 0, 0, 0]])}), "row 0, column 2 is nan"),
    (pack({"actions": np.full((1, 6), np.inf, np.float16)}), "is inf"),
    (bytes(17 << 20), "its frame was refused, code 1009: frame with 17825792 bytes exceeds limit of 16777216 bytes"),
], ids=lambda _: "answer")  # fmt: skip
def test_an_answer_that_is_no_chunk_is_refused_in_one_line(answer, words):
    with scripted(once(answer)) as port:
        remote = RemoteSession(described_by_file(port), ROBOT)
        with pytest.raises(InputError) as error:
            remote.infer([_sample()])
        assert words in str(error.value) and str(error.value).startswith(f"server ws://127.0.0.1:{port}: ")
        assert str(error.value).isprintable() and len(str(error.value)) < 2000
        remote.close()


def test_a_reason_to_close_is_one_line():
    def handle(connection):
        connection.send(pack({}))
        connection.recv()
        connection.close(1011, "first\nsecond \x1b[31mred")

    with scripted(handle) as port:
        remote = RemoteSession(described_by_file(port), ROBOT)
        with pytest.raises(NotYet, match=r"closed, code 1011: first.nsecond .x1b\[31mred$"):
            remote.infer([_sample()])
        remote.close()


def test_an_error_of_the_system_without_words_is_told_in_ours():
    """As a server without TLS gives, asked with wss."""
    assert _system(ConnectionResetError()) == "the connection was closed"
    assert _system(ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")) == "Connection refused"


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
        remote = RemoteSession(described_by_file(port, deadline=0.2), ROBOT)
        with pytest.raises(NotYet, match=r"no answer within 0\.2 s"):
            remote.infer([_sample()])
        slow[0] = False
        remote.file = described_by_file(port)
        hold.set()
        later = Sample(_sample().images, np.full((1, 6), 0.25), "go")
        (result,) = remote.infer([later])
        assert (result.targets.parts[0].data == 0.25).all() and questions == [0.0, 0.25]
        remote.close()


@contextmanager
def deaf(after: bytes = b""):
    """A server that greets each connection, sends `after` and reads nothing more; its port."""
    listener, held = socket.create_server(("127.0.0.1", 0)), []
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def greet() -> None:
        with suppress(OSError):
            while True:
                held.append(listener.accept()[0])
                key = re.search(rb"Sec-WebSocket-Key: (\S+)", held[-1].recv(4096)).group(1)
                accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                held[-1].send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n\x82\x01\x80" + after)  # fmt: skip

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
        remote = RemoteSession(described_by_file(port, deadline=0.3), ROBOT)
        large = Sample({name: np.zeros((1, 1500, 2000, 3), np.uint8) for name in ROBOT.camera_names},
                       np.zeros((1, 6)), "go")  # fmt: skip
        for _ in range(2):
            with pytest.raises(NotYet, match=r"no answer within 0\.3 s"):
                remote.infer([large])
        remote.close()


def test_a_frame_that_is_too_large_is_told_while_the_server_does_not_close():
    with deaf(b"\x82\x7f" + (60_000_000).to_bytes(8)) as port:
        remote = RemoteSession(described_by_file(port, deadline=0.5), ROBOT)
        _until(lambda: "code 1009: frame with 60000000 bytes exceeds limit of 16777216" in _refusal(remote, _sample()))
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
        remote = RemoteSession(described_by_file(port), ROBOT)
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
        for _ in range(3):  # between two attempts too
            assert "another policy" in _refusal(remote, one)
    with scripted(lambda connection: connection.send("no metadata"), port):
        _until(lambda: "not a msgpack" in _refusal(remote, one))
    with scripted(lambda connection: connection.close(1011, "out of memory"), port):
        _until(lambda: "code 1011: out of memory" in _refusal(remote, one))
    remote.close()


def test_metadata_of_others_are_compared_as_they_are():
    served = ["a"]

    def handle(connection):
        connection.send(pack({"policy": served[-1], "low": np.zeros(2)}))
        for _ in connection:
            connection.send(pack({"actions": np.zeros((2, 6))}))

    with scripted(handle) as port:
        remote = RemoteSession(described_by_file(port), ROBOT)
        remote._connection.give_up()
        remote.infer([_sample()])
        served.append("b")
        remote._connection.give_up()
        with pytest.raises(InputError, match="another policy"):
            remote.infer([_sample()])
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


def described(**changes) -> bytes:
    part = {"names": ["a"], "space": "JOINT_POSITION", "group": "", "frame": ""}
    sound = {"policy": "x", "joints": ["a"], "keys": {"cameras": {"a": "front"}, "state": {"b": 1}}, "streams": {},
             "steps": {"front": [0]}, "step_dt": 1.0, "horizon": 1, "parts": [part]}  # fmt: skip
    return pack({"vla_ros": sound | changes})


@pytest.mark.parametrize("metadata, words", [
    (pack({}), "does not describe itself"), (pack({"reset_pose": [0.0]}), "does not describe itself"),
    (pack([]), "does not describe itself"), (pack({"vla_ros": 3}), "expected a mapping"),
    (pack({"vla_ros": {"policy": "pi0"}}), "missing"), (b"\xc1", "metadata: 1 bytes are not a msgpack"),
    ("text", "metadata"), (pack({"vla_ros": {"policy": "x", "joints": [], "keys": {}, "streams": {}, "steps": {},
                                             "step_dt": 0.0, "horizon": 1, "parts": []}}), "step_dt 0.0"),
    (described(policy="x" * 1000), "1000 characters"), (described(step_dt=1e6), "at most 600 s"),
    (described(steps={"front": [-900]}), "at most 600 s"), (described(steps={"front": [1]}), "offsets from -1000"),
    (described(steps={"front": [0], "lidar": [0]}), "it reads ['front', 'lidar']"),
    (described(parts=[{"names": ["a"], "space": "WARP", "group": "", "frame": ""}]), "space 'WARP'"),
    (described(keys={"cameras": {"a": "front"}, "state": {"a.b": 1}}), "'a': expected a name that no other"),
    (described(horizon=0), "horizon"), (described(joints=["a", "b"]), "as many numbers as joints"),
    (described(steps={"front": [0]}), "reads and commands the joints"),
], ids=lambda _: "metadata")  # fmt: skip
def test_metadata_that_describe_no_policy(metadata, words):
    def handle(connection):
        connection.send(metadata)
        for _ in connection:
            pass

    with scripted(handle) as port, pytest.raises(InputError) as error:
        open_session(f"ws://127.0.0.1:{port}", ROBOT)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_policy_server_is_named():
    def refuse(connection, request):
        return connection.respond(307, "elsewhere")

    with scripted(lambda connection: None, process_request=refuse) as port:
        with pytest.raises(InputError, match="status 307"):
            client(port)
    for code in (429, 502, 503, 504):  # a gateway, whose server may come yet
        answer = lambda connection, request, code=code: connection.respond(code, "")  # noqa: E731
        with scripted(lambda connection: None, process_request=answer) as port:
            with pytest.raises(NotYet, match=f"HTTP status {code}"):
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
        ("graph False", {"options": SessionOptions(graph=False)}),
        ("engine 'openvino'", {"options": SessionOptions(engine="openvino")}),
        ("roll_state", {"options": SessionOptions(roll_state=True)}),
    ):
        with pytest.raises(InputError, match=name):
            open_server(ServerFile("ws://127.0.0.1:1"), ROBOT, **options)
    with pytest.raises(NotYet):  # what nodes ask for by default is no choice
        open_server(ServerFile("ws://127.0.0.1:1"), ROBOT, options=SessionOptions(engine="auto"))
    with scripted(once(pack({}))) as port:
        with pytest.raises(InputError, match="seed 3: only our servers"):
            RemoteSession(described_by_file(port), ROBOT, seed=3)
        with pytest.raises(InputError, match="images jpeg"):
            RemoteSession(described_by_file(port, images="jpeg"), ROBOT)
