"""Message definitions: the texts in a bag, and the types that decode its messages."""

import os
import re
import struct
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from vla_ros.core.errors import InputError

SEPARATOR = "=" * 80
IDL_HEADER = re.compile(r"^=+\s*\n(?:IDL|MSG): .*$", re.MULTILINE)  # that rosbag2 puts before each file
# Publishers may leave uninitialised bytes after a message (alignment of the middleware's buffers).
MAX_TRAILING_BYTES = 16
SOURCE_FOLDER = Path(__file__).resolve().parents[2]  # of a source tree; an installed package has no msg/ there


@cache
def standard_store() -> Typestore:
    """The messages of ROS 2 Kilted and this package's own. Shared: do not register types in it."""
    store = get_typestore(Stores.ROS2_KILTED)
    for folder in _package_folders("vla_ros")[:1]:
        for path in sorted(folder.glob("*.msg")):
            add_definition(store, f"vla_ros/msg/{path.stem}", path.read_text(encoding="utf-8"))
    return store


def _package_folders(package: str, kind: str = "msg") -> list[Path]:
    """Folders that hold the .msg files of a package, or those of another `kind`, the best first."""
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    folders = [prefix / "share" / package / kind for prefix in prefixes]
    if package == "vla_ros":
        folders.append(SOURCE_FOLDER / kind)
    return [folder for folder in folders if folder.is_dir()]


def message_text(typename: str) -> str | None:
    """The .msg file of `package/msg/Name` as written by its author, or None when it is not installed.

    Also of `package/action/Name_FeedbackMessage`, what an action sends on its topic of feedback, and what it holds.
    """
    if action := re.fullmatch(r"((\w+)/action/(\w+)_Feedback)(Message)?", typename):
        return _feedback_text(*action.groups())
    parts = re.fullmatch(r"(\w+)/msg/(\w+)", typename)
    for folder in _package_folders(parts[1]) if parts else ():
        path = folder / f"{parts[2]}.msg"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


def _feedback_text(feedback: str, package: str, name: str, message: str | None) -> str | None:
    for folder in _package_folders(package, "action"):
        path = folder / f"{name}.action"
        sections = re.split(r"^---\s*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE) if path.is_file() else ()
        if len(sections) == 3:
            sent = f"unique_identifier_msgs/UUID goal_id\n{feedback} feedback\n"
            return sent if message else sections[2].lstrip("\n")
    return None


def full_definition(typename: str) -> tuple[str, str]:
    """(definition, RIHS01 hash) of a message with everything it contains, as rosbag2 stores them.

    The text comes from the .msg files of the installed packages (with their comments), else from the types of
    ROS 2 Kilted. Raises InputError for a type that is known to neither.
    """
    if typename.count("/") != 2:
        raise InputError(f"message type {typename!r}: expected package/msg/Name")
    store = Typestore()
    texts: dict[str, str] = {}
    pending = [typename]
    while pending:
        name = pending.pop(0)
        if name in texts:
            continue
        text = message_text(name)
        if text is None:
            if name not in standard_store().fielddefs:
                raise InputError(
                    f"message type {name}: unknown definition; its package is not in AMENT_PREFIX_PATH "
                    f"({os.environ.get('AMENT_PREFIX_PATH', '') or 'unset'}) and it is not a standard message"
                )
            text = standard_store().generate_msgdef(name, ros_version=2)[0].split(SEPARATOR)[0]
        texts[name] = text
        add_definition(store, name, text)
        pending += _contained(store, name)
    parts = [texts.pop(typename)]
    parts += [f"{SEPARATOR}\nMSG: {name.replace('/msg/', '/')}\n{text}" for name, text in texts.items()]
    return "\n".join(part.rstrip("\n") for part in parts) + "\n", store.hash_rihs01(typename)


def _contained(store: Typestore, typename: str) -> list[str]:
    names = []
    for _, field in store.fielddefs[typename][1]:
        kind, detail = field
        if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            kind, detail = detail[0]
        if kind == Nodetype.NAME:
            names.append(detail)
    return names


def add_definition(store: Typestore, typename: str, text: str, idl: bool = False) -> None:
    """Register a definition (with those that follow its separators) in a store. Raises InputError.

    Files that IDL includes may be unreadable: they only matter if one of their types is decoded.
    """
    problem = None
    for part in filter(str.strip, IDL_HEADER.split(text) if idl else [text]):
        try:
            types = get_types_from_idl(part) if idl else get_types_from_msg(part, typename)
            store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})
        except Exception as error:  # the parser's own errors have no common base
            problem = error
    if typename not in store.fielddefs:
        said = " ".join(str(problem or "it is not in it").split())[:100]
        raise InputError(f"message type {typename}: its definition cannot be read: {said}") from problem


@lru_cache(maxsize=16)
def store_for(definitions: frozenset[tuple[str, MessageDefinition]]) -> tuple[Typestore, dict[str, str]]:
    """(the types of a bag: those that it defines, and the standard and installed ones for the rest; type -> why it
    cannot be read).

    Such a type only matters if a message of it is decoded. Shared by bags with the same definitions: do not register
    types in it.
    """
    store, problems = Typestore(), {}
    for typename, definition in sorted(definitions, key=lambda one: (one[0], one[1].data)):
        if definition.format != MessageDefinitionFormat.NONE and definition.data:
            try:
                add_definition(store, typename, definition.data, idl=definition.format == MessageDefinitionFormat.IDL)
            except InputError as error:
                problems[typename] = str(error)
    for typename in sorted({name for name, _ in definitions}):
        lacking, pending, seen = "", [typename], set()
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            text = None if name in store.fielddefs else message_text(name)
            if name not in store.fielddefs and name in standard_store().fielddefs:
                store.register({name: standard_store().fielddefs[name]})
            elif text is not None:
                add_definition(store, name, text)
            if name in store.fielddefs:
                pending += _contained(store, name)
            else:
                lacking = name
        if not lacking:
            problems.pop(typename, None)
        elif lacking == typename:
            problems.setdefault(typename, f"message type {typename}: unknown definition; the bag does not carry it and "
                                          "it is not installed")  # fmt: skip
        else:
            problems[typename] = f"message type {typename}: contains a {lacking}, whose definition is missing"
    return store, problems


def deserialized(store: Typestore, typename: str, data: bytes) -> Any:
    """A message of CDR bytes. Raises InputError."""
    definition = store.get_msgdef(typename)
    if len(data) < 4 or data[0] != 0 or data[1] not in (0, 1):
        raise InputError(f"not CDR: begins with {bytes(data[:4]).hex() or 'nothing'}")
    read = definition.deserialize_cdr_le if data[1] else definition.deserialize_cdr_be
    try:
        message, end = read(memoryview(data)[4:], 0, definition.cls, store)
    except (SerdeError, struct.error, ValueError, IndexError, OverflowError, MemoryError, RecursionError) as error:
        raise InputError(f"not a {typename}: {error}") from error
    if len(data) - 4 - end > MAX_TRAILING_BYTES:
        raise InputError(f"not a {typename}: {len(data)} bytes, expected {end + 4}")
    return message


def starts_with_header(store: Typestore, typename: str) -> bool:
    """True for messages whose first field is a std_msgs/Header."""
    fields = store.fielddefs.get(typename, ((), ()))[1]
    return bool(fields) and fields[0][1] == (Nodetype.NAME, "std_msgs/msg/Header")
