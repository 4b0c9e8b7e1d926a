"""A real Redis on a socket of its own, which keeps nothing on disk."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import redis

from tests.gateway_live.processes import eventually


@contextlib.contextmanager
def running_redis() -> Iterator[str]:
    """Its URL."""
    with tempfile.TemporaryDirectory(prefix="mars-redis-") as directory:
        socket = Path(directory, "redis.sock")
        settings = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", directory]
        with Path(directory, "redis.log").open("w") as log:
            process = subprocess.Popen(["redis-server", *settings], stdout=log, stderr=log)
        try:
            eventually(lambda: _answers(socket), "Redis answers")
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait(10)


def _answers(socket: Path) -> bool:
    client = redis.Redis(unix_socket_path=str(socket))
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
    finally:
        client.close()
