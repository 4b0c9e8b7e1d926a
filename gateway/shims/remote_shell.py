"""A shell's words as a command of the gateway: where it starts, what environment and input it gets.

Owns the mapping from here to there, and from the gateway's status to an exit code.
"""

from __future__ import annotations

import os
import stat
import sys

from gateway.shims.calls import Calls, GatewayFault
from gateway.shims.remote_run import ReaderLeft, RemoteRun
from gateway.shims.settings import Environment
from gateway.shims.shell_words import ShellWords

EXIT_NOT_RUN = 125
"""As docker answers when the fault is not the command's."""
EXIT_READER_LEFT = 141
"""As a shell answers for a command that died of SIGPIPE."""
EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND = 126, 127
_SHELL_CPU = 0.05
"""A shell waits for keys nearly all the time; what it is charged is the least there is."""
_SHELL_LIFE_S = 86_400.0
"""The longest run that a gateway allows by default; its default would end a terminal within minutes."""
ENV = "MARS_GWSH_ENV"
ROOT = "MARS_GWSH_ROOT"
_PASSED_ON = (
    "CI COLUMNS DEBIAN_FRONTEND EDITOR FORCE_COLOR GIT_AUTHOR_* GIT_COMMITTER_* GIT_EDITOR GIT_PAGER"
    " GIT_TERMINAL_PROMPT LANG LC_* LESS LINES MANPAGER NO_COLOR PAGER PIP_PROGRESS_BAR PS1 PS2"
    " PYTHONUNBUFFERED TQDM_DISABLE TZ"
)
"""What agents set to keep programs quiet. Nothing that is a secret, and no paths of this machine."""


def run(calls: Calls, session: str, words: ShellWords, request: dict[str, object]) -> int:
    """The exit code. ``request``: more fields of it. Raises GatewayFault."""
    path = f"/v1/sessions/{session}"
    has_terminal = words.reads_input and os.isatty(0)
    input_fd = 0 if has_terminal else input_of_command()
    body: dict[str, object] = {"argv": ["bash", *words.remote_words], **request}
    if has_terminal:
        body |= {"tty": tty_here(), "cpu": _SHELL_CPU, "timeout_s": request.get("timeout_s", _SHELL_LIFE_S)}
    else:
        body |= {"stdin_open": input_fd is not None, "output": {"merge": are_outputs_one()}}
    run = RemoteRun(calls, input_fd=input_fd, has_terminal=has_terminal)
    try:
        return exit_code(run.run(path, body, lambda: make_session(calls, path)))
    except ReaderLeft:
        return EXIT_READER_LEFT


def make_session(calls: Calls, path: str) -> None:
    calls.json("PUT", path, {})


def exit_code(status: dict[str, object]) -> int:
    """Raises GatewayFault where the gateway knows none."""
    for stream in ("stdout", "stderr"):
        counts = status.get(stream)
        if isinstance(counts, dict) and counts.get("truncated"):
            kept, total = counts.get("kept_bytes"), counts.get("total_bytes")
            sys.stderr.write(f"gateway: {stream} is cut off: {kept} of {total} bytes were kept\n")
    code = status.get("exit_code")
    if not isinstance(code, int):
        raise GatewayFault(f"{status.get('state')}: {status.get('reason')}")
    if code in (EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND) and status.get("reason") is not None:
        sys.stderr.write(f"gateway: {status.get('reason')}\n")
    return code


def cwd_of_command(environ: Environment, here: str) -> str:
    """With MARS_GWSH_ROOT, the same place in the workspace; else the same path, which must be there, too."""
    root = environ.get(ROOT)
    if not root:
        return here
    root, here = os.path.realpath(root), os.path.realpath(here)
    if here != root and not here.startswith(root.rstrip("/") + "/"):
        raise GatewayFault(f"{here} is not below {ROOT} ({root}), which is the workspace of the session")
    return os.path.relpath(here, root)


def variables(environ: Environment) -> dict[str, str]:
    """Those of the allow-list: names, and beginnings of names with a * behind them."""
    allowed = (environ.get(ENV) or _PASSED_ON).replace(",", " ").split()
    names = {each for each in allowed if not each.endswith("*")}
    beginnings = tuple(each[:-1] for each in allowed if each.endswith("*"))
    return {
        name: value
        for name, value in environ.items()
        if name in names or (beginnings and name.startswith(beginnings))
    }


def tty_here() -> dict[str, object]:
    """Of the size of ours, if that is known and the gateway has such terminals."""
    from gateway.shims import own_terminal

    cols, rows = own_terminal.size(0) if os.isatty(0) else (0, 0)
    return {"cols": cols, "rows": rows} if 1 <= cols <= 1000 and 1 <= rows <= 1000 else {}


def input_of_command() -> int | None:
    """Standard input, unless it is a terminal, /dev/null or closed."""
    try:
        found = os.fstat(0)
    except OSError:
        return None
    if stat.S_ISCHR(found.st_mode):
        return None
    return 0


def are_outputs_one() -> bool:
    """Standard output and error go to the same place, and shall keep their order there."""
    try:
        out, err = os.fstat(1), os.fstat(2)
    except OSError:
        return False
    return (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino)
