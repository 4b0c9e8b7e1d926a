"""The agent's program in a directory of this machine, and the environment that it is started with.

Owns how the file gets there whole, and which of our variables an agent may know. It must not know how an
agent is reached.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gateway.agent_bundle import AgentBundle

_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER")
"""What a login would have set. The gateway's own variables hold its secrets, and the environment of an agent
can be read by the commands that it runs."""


def agent_environment(ours: Mapping[str, str]) -> dict[str, str]:
    return {name: ours[name] for name in _PASSED_ON if name in ours}


def put_agent(bundle: AgentBundle, directory: Path) -> Path:
    """Where it is, put there if it was not. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / bundle.file_name
    if not _is_whole(path, bundle):
        fd, new = tempfile.mkstemp(prefix=f".{bundle.file_name}.", dir=directory)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(bundle.data)
            Path(new).replace(path)
        except BaseException:
            Path(new).unlink()
            raise
    return path


def _is_whole(path: Path, bundle: AgentBundle) -> bool:
    """The name says what it should be; a disk that was full, or a curious hand, may have made it another."""
    try:
        return path.read_bytes() == bundle.data
    except FileNotFoundError:
        return False
