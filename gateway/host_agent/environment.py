"""The environment of a command: what every command gets, and what its order says on top.

Nothing of the agent's own goes in but PATH and TZ: it may have been started by a person with secrets in his.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the agent itself has none: Debian's default."""

_NOBODY_IS_THERE = {
    "GIT_TERMINAL_PROMPT": "0",
    "DEBIAN_FRONTEND": "noninteractive",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "LANG": "C.UTF-8",
}
"""Programs that would ask or page, and wait for an answer until the deadline, do not."""


def environment(
    agents: Mapping[str, str], workspace: Path, ordered: Mapping[str, str], *, has_terminal: bool
) -> dict[str, str]:
    base = {"PATH": agents.get("PATH", _PATH), "HOME": str(workspace)}
    if "TZ" in agents:
        base["TZ"] = agents["TZ"]
    base["TERM"] = "xterm-256color" if has_terminal else "dumb"
    return {**base, **_NOBODY_IS_THERE, **ordered}
