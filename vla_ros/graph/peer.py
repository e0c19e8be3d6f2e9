"""A node of this process on a graph that others started, for commands that publish and subscribe."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from vla_ros.graph.processes import Graph


@contextmanager
def peer(namespace: str, enclave: str = "operator") -> Iterator[Graph]:
    """A graph that starts no process. Raises InputError for a bad namespace."""
    with tempfile.TemporaryDirectory() as folder, Graph(folder, namespace=namespace, enclave=enclave) as graph:
        yield graph
