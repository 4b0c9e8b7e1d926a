"""One port for several processes: the kernel gives each connection to one of them.

Each worker has a listening socket of its own (``SO_REUSEPORT``). With one socket for all, whoever wakes up
first takes what has come, and connections of agents stay where they are for hours (``tests/bench/balance.py``
measures both). A worker that dies takes its socket with it, and the others get what comes next. Owns how the
port is taken.
"""

import socket


def reserve(host: str, port: int) -> socket.socket:
    """Keep the port for the workers. It gets no connections itself, for it does not listen.

    Raises:
        OSError: somebody has it. Sharing would let a second proxy of the same user in without a word, so
            it is tried without that first.
    """
    with _socket(host) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind((host, port))
        alone.listen(1)
        taken = alone.getsockname()[1] if port == 0 else port
    return bound(host, taken)


def bound(host: str, port: int) -> socket.socket:
    """A worker's socket, not listening yet."""
    shared = _socket(host)
    try:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((host, port))
    except OSError:
        shared.close()
        raise
    return shared


def _socket(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made
