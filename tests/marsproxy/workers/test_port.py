"""A port for several processes is theirs alone."""

import socket

import pytest

from marsproxy.workers.port import bound, reserve


def test_workers_share_what_is_reserved() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        with bound("127.0.0.1", port) as one, bound("127.0.0.1", port) as other:
            one.listen()
            other.listen()
            with socket.create_connection(("127.0.0.1", port)):
                pass


def test_a_second_proxy_is_not_let_in() -> None:
    """Whether the port is served already, with or without sharing."""
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        with bound("127.0.0.1", port) as worker:
            worker.listen()
            with pytest.raises(OSError, match="in use"):
                reserve("127.0.0.1", port)


def test_the_reservation_itself_gets_no_connections() -> None:
    with reserve("127.0.0.1", 0) as reserved, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", reserved.getsockname()[1]))
