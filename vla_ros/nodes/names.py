"""Names of the constants in messages."""

from vla_ros.msg import ExecutorStatus, PolicyStatus


class Names(dict[int, str]):
    """Value -> name; an unknown value, of a newer node for example, has a name too."""

    def __missing__(self, value: int) -> str:
        return f"unknown ({value})"


def constants(message: type, prefix: str = "", without: str = " ") -> Names:
    """Value -> name in words of a message's constants whose names begin with `prefix` and not with `without`.

    The classes generated for Python keep them in the metaclass.
    """
    names = [n for n in dir(type(message)) if n.isupper() and n.startswith(prefix) and not n.startswith(without)]
    found = {getattr(message, name): name.removeprefix(prefix).replace("_", " ").lower() for name in names}
    return Names({value: name for value, name in found.items() if isinstance(value, int)})


POLICY_STATES = constants(PolicyStatus)
CAUSES = constants(ExecutorStatus, "CAUSE_")
EXECUTOR_STATES = constants(ExecutorStatus, without="CAUSE_")
