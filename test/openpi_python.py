"""openpi-client itself, in a Python of its own that VLA_OPENPI_PYTHON names: it pins another numpy.

    client PORT FILE TOKEN    asks the server with the observations of FILE (.npz), writes FILE.answers.npz
    server FACTOR             a server of openpi's protocol, made of openpi-client's own coding; prints its port

It imports typing_extensions, which it does not ask for.
"""

import sys
import time

import numpy as np
from openpi_client import msgpack_numpy, websocket_client_policy
from websockets.sync.server import serve


def client(port: str, file: str, token: str) -> None:
    policy = websocket_client_policy.WebsocketClientPolicy("127.0.0.1", int(port), token)
    told = np.load(file)
    observations = [{name: told[name][k] for name in told.files} for k in range(len(told["prompt"]))]
    answers = [policy.infer(one | {"prompt": str(one["prompt"])}) for one in observations]
    assert all("server_timing" in answer and "policy_timing" in answer for answer in answers)
    np.savez(f"{file}.answers.npz", actions=np.stack([answer["actions"] for answer in answers]),
             joints=policy.get_server_metadata()["vla_ros"]["joints"])  # fmt: skip
    try:
        policy.infer({"prompt": "nothing to see"})
    except RuntimeError as error:
        print(str(error).replace("\n", " "))


def server(factor: str) -> None:
    """As openpi's: metadata first, a traceback as text where an observation does not fit, then the end."""

    def handle(connection):
        packer = msgpack_numpy.Packer()
        connection.send(packer.pack({"reset_pose": [0.0] * 8}))
        for message in connection:
            began = time.monotonic()
            one = msgpack_numpy.unpackb(message)
            try:
                state = np.concatenate([one["observation/joint_position"], one["observation/gripper_position"]])
                assert one["observation/exterior_image_1_left"].shape == (224, 224, 3), one["prompt"]
                mean = one["observation/wrist_image_left"].mean()
            except Exception as error:
                connection.send(f"Traceback (most recent call last):\n  File x\n{type(error).__name__}: {error}\n")
                connection.close(1011, "Internal server error. Traceback included in previous frame.")
                return
            if one["prompt"] == "fail":
                connection.send("Traceback (most recent call last):\n  ...\nRuntimeError: out of memory\n")
                connection.close(1011, "Internal server error. Traceback included in previous frame.")
                return
            rows = np.tile(state * float(factor), (10, 1)).astype(np.float32)
            rows[:, -1] = mean / 255
            timing = {"infer_ms": (time.monotonic() - began) * 1000}
            connection.send(packer.pack({"actions": rows, "state": state, "policy_timing": timing,
                                         "server_timing": timing}))  # fmt: skip

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as made:
        print(made.socket.getsockname()[1], flush=True)
        made.serve_forever()


if __name__ == "__main__":
    {"client": client, "server": server}[sys.argv[1]](*sys.argv[2:])
