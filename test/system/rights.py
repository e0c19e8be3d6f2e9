"""What the nodes of a running graph use, beside what the policy file gives them."""

from typing import Any

from vla_ros.graph.security import Enclave

SERVED = ("send_goal", "cancel_goal", "get_result")  # by the server of an action
PUBLISHED = ("feedback", "status")


def used(node: Any, name: str) -> dict[str, set[str]]:
    """What a peer sees that node `name` publishes, subscribes to, serves and asks for."""
    queries = {
        "publish": node.get_publisher_names_and_types_by_node,
        "subscribe": node.get_subscriber_names_and_types_by_node,
        "reply": node.get_service_names_and_types_by_node,
        "request": node.get_client_names_and_types_by_node,
    }
    return {rule: {entry for entry, _ in query(name, "/")} for rule, query in queries.items()}


def given(enclave: Enclave, name: str) -> dict[str, set[str]]:
    """The same, as the policy file has it."""

    def full(entries: Any) -> set[str]:
        return {e if e.startswith("/") else f"/{name}{e[1:]}" if e.startswith("~") else f"/{e}" for e in entries}

    found = {rule: full(getattr(enclave, rule)) for rule in ("publish", "subscribe", "reply", "request")}
    for action in full(enclave.execute):
        found["reply"] |= {f"{action}/_action/{what}" for what in SERVED}
        found["publish"] |= {f"{action}/_action/{what}" for what in PUBLISHED}
    for action in full(enclave.call):
        found["request"] |= {f"{action}/_action/{what}" for what in SERVED}
        found["subscribe"] |= {f"{action}/_action/{what}" for what in PUBLISHED}
    return found
