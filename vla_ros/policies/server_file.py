"""A policy on another machine: `ws://HOST:PORT`, or a policy file with `server` in place of `checkpoint`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import read_token
from vla_ros.core.records import Count, Pixels, Range, record
from vla_ros.core.resources import SCHEMES, is_server, server_mapping
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.images import FITS

Seconds = Annotated[float, Range(0.01, 3600)]


@dataclass(frozen=True)
class Keys:
    """Names of the entries of an observation and of an answer. A dot selects an entry of a map: `images.cam_high`.

    Attributes:
        cameras: key -> camera of the robot file.
        state: keys of the state, in order -> how many of its numbers each contains.
        prompt: of the instruction.
        actions: of the answer's (H, A) rows.
        channels_first: images are (3, height, width), else (height, width, 3).
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, Count] = field(default_factory=dict)
    prompt: str = "prompt"
    actions: str = "actions"
    channels_first: bool = False

    def __post_init__(self) -> None:
        """Raises InputError if two entries have the same key, or one would be inside another."""
        names = [*self.cameras, *self.state, self.prompt]
        for name in (*names, self.actions):
            inside = [other for other in names if other is not name and f"{other}.".startswith(f"{name}.")]
            if inside or not all(name.split(".")):
                raise InputError(f"{shown(name)}: expected a name that no other one is, or begins with, as "
                                 f"{shown(inside)}; a dot stands between two names")


@dataclass(frozen=True)
class ServerFile:
    """Where a policy runs, and how to query it.

    Attributes:
        server: `ws://HOST:PORT`, or `wss://` with TLS.
        token_file: its first line is sent as `Authorization: Api-Key TOKEN`.
        certificate: PEM file of the authority that signed the server's certificate; None: those that the system knows.
        deadline: s that an answer, including the time on the network, or a new connection may take.
        patience: s for the connection and the first answer when the policy is configured: a server may compile then.
        images: "raw", or "jpeg" if the server accepts it.
        image_size: (height, width) of the images that are sent; None: as the camera gives them.
        image_fit: how they are resized, a key of `images.FITS`.
        keys: for a server that does not describe them itself; its `cameras` are those of the embodiment.
        embodiment: the robot's cameras and joints in the server's terms; None: as the server describes them, if it is
            one of ours.
    """

    server: str
    token_file: str | None = None
    certificate: str | None = None
    deadline: Seconds = 1.0
    patience: Seconds = 60.0
    images: str = "raw"
    image_size: tuple[Pixels, Pixels] | None = None
    image_fit: str = "pad"
    keys: Keys = Keys()
    embodiment: Embodiment | None = None

    def __post_init__(self) -> None:
        if not self.server.startswith(SCHEMES) or not _address(self.server):
            raise InputError(f"server {shown(self.server)}, expected ws://HOST:PORT, or wss:// with TLS")
        if self.certificate and not self.server.startswith("wss://"):
            raise InputError(f"certificate with server {self.server}: it has no TLS, expected wss://HOST:PORT")
        if self.images not in ("raw", "jpeg"):
            raise InputError(f"images {shown(self.images)}, expected raw or jpeg")
        fits = sorted(name for name, fit in FITS.items() if fit.dtype().dtype == "uint8")
        if self.image_fit not in fits:
            raise InputError(f"image_fit {shown(self.image_fit)}, expected one of {fits}")

    @property
    def token(self) -> str:
        """The token, empty if there is none. Raises InputError."""
        return read_token(self.token_file) if self.token_file else ""


def _address(url: str) -> bool:
    """Whether a URL names a host, optionally a port, and no user."""
    try:
        parts = urlsplit(url)
        plain = url.isprintable() and not {" ", "@"} & set(url)
        return plain and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def read_server(path: str | Path) -> ServerFile | None:
    """Read a URL, or a policy file with `server`; None for everything else. Raises InputError.

    Paths in the file are relative to it.
    """
    data = server_mapping(path)
    if data is None:
        return None
    if is_server(path):
        return record(ServerFile, data)
    path = Path(path).expanduser()
    where = f"policy file {path}"
    own = {f.name for f in fields(ServerFile)} - {"embodiment"}
    said = {name: data.pop(name) for name in own & data.keys()}
    for name in ("token_file", "certificate"):
        if isinstance(said.get(name), str):
            said[name] = str(path.parent / Path(said[name]).expanduser())
    file = record(ServerFile, said, where)
    if data.keys() - {"step_dt"} or said.get("keys"):
        embodiment = Embodiment.from_dict(data, where)
        if embodiment.step_dt is None:
            raise InputError(f"{where}: missing step_dt, s between the rows of the server's actions")
        return replace(file, embodiment=embodiment)
    if data:
        raise InputError(f"{where}: step_dt alone, expected cameras, state and actions too, or none of them: then the "
                         "server says it")
    return file
