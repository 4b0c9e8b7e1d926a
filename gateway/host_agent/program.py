"""This program: how to start it again, the digest by which a gateway knows it, its names in its directory.

Owns the difference between the one file that is sent to hosts and a checkout. It must not know what the
program does; it imports little, since ``connect`` starts once per connection.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

EXIT_TAKEN = 3
"""Exit code of ``serve`` when another agent has the directory."""
SOCKET = "agent.sock"
LOG = "agent.log"
_PACKAGE = "gateway.host_agent"


def archive() -> Path | None:
    """The file that this program runs from; None in a checkout, where that is a directory."""
    outermost = Path(__file__).parents[2]
    return outermost if outermost.is_file() else None


def program_digest() -> str | None:
    """None in a checkout: there is no one file to compare."""
    import hashlib

    path = archive()
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def command() -> list[str]:
    path = archive()
    if path is None:
        return [sys.executable, "-m", _PACKAGE]
    return [sys.executable, "-I", str(path)]


def environment() -> dict[str, str]:
    """For ``command``."""
    if archive() is not None:
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
