"""What the parent tells a worker before anything else."""

import pickle
import socket
from dataclasses import dataclass

from marsproxy.config import Config
from marsproxy.workers.frames import HEAD, Frame, Kind, encode


@dataclass(frozen=True, slots=True)
class Assignment:
    """Travels over the socket, so that no secret shows among arguments or in the environment."""

    config: Config
    backend_urls: tuple[str, ...]
    port: int
    """Where the workers listen; the configuration may have said 0."""
    forms_seed: int


def encoded(assignment: Assignment) -> bytes:
    return encode(Frame(Kind.ASSIGNMENT, payload=pickle.dumps(assignment)))


def receive(parent: socket.socket) -> Assignment:
    """The first frame; waits for it. It is the parent's own word, hence read without restrictions.

    Raises:
        EOFError: the parent is gone.
    """
    size, kind, _, _ = HEAD.unpack(_exactly(parent, HEAD.size))
    assert kind == Kind.ASSIGNMENT
    assignment = pickle.loads(_exactly(parent, size))
    assert isinstance(assignment, Assignment)
    return assignment


def _exactly(parent: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = parent.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
