"""Whose command this is: the name of the session, and the labels by which the proxy knows the agent.

Owns the order in which names are looked for. An agent that gives none is known by its process: the nearest
ancestor that is no shell and no mere starter of programs, its start time (so that a number that is used again
is another agent) and the host. It is the same for all commands of one agent process. Several agents in one
process are told apart by ``MARS_GATEWAY_SESSION`` alone.
"""

from __future__ import annotations

import hashlib
import os

from gateway.shims.settings import SESSION, Environment

_AGENT_IDS = (("codex", "CODEX_THREAD_ID"), ("claude", "CLAUDE_CODE_SESSION_ID"))
"""What frameworks give the tools that they start. They name sessions here; ``llm_session`` they are not, for
the proxy has ids of its own, and a run that names another one is nobody's to it."""
_TOOL_CALL_IDS = ("MARS_TOOL_CALL_ID", "CODEX_TOOL_CALL_ID")
_LLM_SESSION = "MARS_LLM_SESSION"
_STARTERS = frozenset(
    b"bash dash env fish flock gw-docker gwsh ionice nice nohup script setsid sh stdbuf sudo time timeout"
    b" xargs zsh".split()
)
_MOST_ANCESTORS = 12
_MAX_NAME_CHARS = 128
_MAX_LABEL_CHARS = 256
_NAME_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def session_name(environ: Environment, parent_pid: int, *, shell_pid: int | None = None) -> str:
    """Of characters that the gateway takes. ``shell_pid``: of one that stays; each is taken for an agent of
    its own where nobody says otherwise, since servers of agents keep many."""
    if given := environ.get(SESSION):
        return _clean(given)
    for kind, variable in _AGENT_IDS:
        if value := environ.get(variable):
            return _clean(f"{kind}-{value}")
    host = os.uname().nodename
    shell = "" if shell_pid is None else f"-{shell_pid}"
    return _clean(f"{host}-{agent_process(parent_pid)}{shell}")


def labels(environ: Environment) -> dict[str, str]:
    """None where nothing is known."""
    found = {
        "llm_session": [environ.get(_LLM_SESSION)],
        "tool_call_id": [environ.get(each) for each in _TOOL_CALL_IDS],
    }
    known = {name: next((value for value in values if value), None) for name, values in found.items()}
    return {name: value[:_MAX_LABEL_CHARS] for name, value in known.items() if value is not None}


def agent_process(pid: int) -> str:
    """``PID-START``: of the agent that has this descendant."""
    found = str(pid)
    for _ in range(_MOST_ANCESTORS):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                text = file.read()
        except OSError:
            return found
        name = text[text.find(b"(") + 1 : text.rfind(b")")]
        fields = text[text.rfind(b")") + 2 :].split()
        found = f"{pid}-{fields[19].decode()}"
        parent = int(fields[1])
        if name not in _STARTERS or parent <= 1:
            return found
        pid = parent
    return found


def _clean(text: str) -> str:
    """Two different texts stay two."""
    clean = "".join(each if each in _NAME_CHARS else "-" for each in text)
    if clean == text and len(text) <= _MAX_NAME_CHARS and not text.startswith("."):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{clean.lstrip('.')[: _MAX_NAME_CHARS - 13]}-{digest}"
