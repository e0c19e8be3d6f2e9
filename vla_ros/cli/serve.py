"""Run a policy for robots on other machines; needs no ROS.

    vla-ros serve CHECKPOINT --robot so101 --port 8000
    vla-ros serve CHECKPOINT --robot so101 --host 0.0.0.0 --token-file token --certificate server.pem --key server.key

It uses openpi's websocket protocol. Clients are policy_node (`policy: ws://HOST:8000`) and WebsocketClientPolicy of
openpi-client. State and actions are the joints of the robot file, in rad or m, in its order.
"""

import argparse
import asyncio
import ipaddress
import signal
import ssl

from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.files import read_token
from vla_ros.core.records import read_mapping, record
from vla_ros.core.robot import RobotSpec
from vla_ros.core.text import say


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", help="checkpoint folder or policy file")
    options.robot(parser, default="so101")
    parser.add_argument("--host", default="127.0.0.1",
                        help="address to listen on (default: 127.0.0.1, this machine only; 0.0.0.0: all)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one (default: 8000)")
    parser.add_argument("--token-file", metavar="FILE",
                        help="file whose first line is the token that clients must send")
    parser.add_argument("--certificate", metavar="PEM", help="certificate chain of the server, for TLS (wss://)")
    parser.add_argument("--key", metavar="PEM", help="private key of the certificate (default: in the same file)")
    parser.add_argument("--keys", metavar="YAML", help="file with the names of the entries, as `keys` of a policy file")
    parser.add_argument("--clients", type=int, default=4,
                        help="robots served at a time; a policy with memory is warmed up for each (default: 4)")
    parser.add_argument("--tokenizer", help="folder of the tokenizer's files (default: the checkpoint's own)")
    options.device(parser)
    options.dtype(parser)
    options.engine(parser)
    options.num_steps(parser)
    parser.add_argument("--compile", action="store_true",
                        help="fuse operations with torch.compile; starting then takes minutes")
    options.threads(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed for sampling actions; a client's own is added to it")


def main(args: argparse.Namespace) -> int:
    for name, low, high in (("port", 0, 65535), ("clients", 1, 1000), ("threads", 0, 256), ("seed", 0, 1 << 62)):
        if not low <= getattr(args, name) <= high:
            raise InputError(f"--{name} {getattr(args, name)}, expected {low} to {high}")
    options.check_num_steps(args)
    import torch

    from vla_ros.policies.server_file import Keys
    from vla_ros.runtime.remote.server import PolicyServer, ServerOptions
    from vla_ros.runtime.serving import open_policy
    from vla_ros.runtime.session import SessionOptions

    if args.threads:
        torch.set_num_threads(args.threads)
    token = read_token(args.token_file) if args.token_file else ""
    keys = record(Keys, read_mapping(args.keys, "keys"), f"keys {args.keys}") if args.keys else None
    how = ServerOptions(args.host, args.port, token, _tls(args), args.clients, say)
    robot = RobotSpec.load(args.robot)
    session = SessionOptions(num_steps=args.num_steps, compile=args.compile, seed=args.seed, engine=args.engine)
    loaded = open_policy(args.policy, robot, args.device, args.dtype, args.tokenizer)
    server = PolicyServer(loaded, robot, session, keys, how)
    scheme = "wss" if how.tls else "ws"
    said = server.described

    def ready(port: int) -> None:
        say(f"{said.policy} of {args.policy} for {robot.name}: cameras {list(said.keys.cameras)}, state "
            f"{dict(said.keys.state)}, {said.horizon} rows of {said.step_dt:g} s")
        for words in exposure(args.host, token, how.tls is not None):
            say(words)
        host = f"[{args.host}]" if ":" in args.host else args.host
        say(f"serving at {scheme}://{host}:{port}; Ctrl-C ends it")

    asyncio.run(_until_stopped(server, ready))
    return 0


async def _until_stopped(server, ready) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await server.run(ready, stop)


def exposure(host: str, token: str, tls: bool) -> list[str]:
    """What others who reach the port can do, a line each."""
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if here:
        return []
    open_to = [] if token else ["no --token-file: everyone who can reach this port can use the policy"]
    return open_to + ([] if tls else ["no --certificate: images, actions and token are sent unencrypted"])


def _tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    if not args.certificate:
        if args.key:
            raise InputError(f"--key {args.key} without --certificate")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(args.certificate, args.key, password="")
    except OSError as error:  # ssl's errors too
        raise InputError(f"--certificate {args.certificate}, --key {args.key}: {error.strerror or error}, expected PEM "
                         "files of a certificate and of its key, without a password") from None
    return context
