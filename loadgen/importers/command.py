"""``loadgen import``: transcripts of agents, and other traces, as one workload file."""

import contextlib
import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from loadgen.errors import LoadgenError
from loadgen.importers.counting import CharacterCounter, FileTokenizer, TokenCounter
from loadgen.importers.find import Format
from loadgen.importers.import_run import ImportRun, Origin, TraceFormat
from loadgen.importers.summary import lines_of
from loadgen.importers.transcript import Reading
from loadgen.text import DEFAULT_CHARS_PER_TOKEN
from loadgen.trace import write_sessions
from loadgen.workload import Session

FormatName = Literal[
    "auto",
    "claude-code",
    "codex",
    "mini-swe-agent",
    "openhands",
    "swe-agent",
    "own",
    "agent-sessions",
    "mooncake",
]


def import_command(
    *paths: Path,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("imported.jsonl"),
    format: Annotated[FormatName, Parameter(name=["--format", "-f"])] = "auto",  # noqa: A002 - the flag
    tokenizer: Path | None = None,
    chars_per_token: float = DEFAULT_CHARS_PER_TOKEN,
    keep_text: bool = False,
    keep_arrivals: bool = False,
) -> int:
    """Turn transcripts of agents into a workload file: sizes and times, no text.

    Parameters
    ----------
    paths
        Files, plain or gzip, and directories, which are walked: ~/.claude/projects, ~/.codex/sessions, a
        directory of trajectories.
    out
        The workload file, compressed if its name ends in .gz. Replaced if it is there.
    format
        Of all files; auto tells it by their content.
    tokenizer
        A tokenizer.json, for what no usage is recorded of.
    chars_per_token
        Without a tokenizer, for what no usage is recorded of.
    keep_text
        Keep the commands that tools ran, to run them again, and the names of all tools.
    keep_arrivals
        Keep when sessions began, so that a replay starts them then: days apart, where they were.
    """
    if not paths:
        raise LoadgenError("import needs a file or a directory, such as ~/.claude/projects")
    counter = FileTokenizer(tokenizer) if tokenizer is not None else CharacterCounter(chars_per_token)
    run = ImportRun(Reading(counter, keep_text), origin_of(format), keep_arrivals=keep_arrivals)
    sessions = run.read([path.expanduser() for path in paths])
    errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    for problem in run.problems():
        errors.print(f"loadgen: {problem}")
    if not sessions:
        raise LoadgenError(f"nothing to import: {run.why_nothing()}")
    write_whole(out, sessions)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in lines_of(sessions, run, out, counted_by(counter, chars_per_token)):
        console.print(line)
    return 0


def origin_of(name: FormatName) -> Origin | None:
    if name == "auto":
        return None
    traces = {each.value: each for each in TraceFormat}
    return traces.get(name) or Format(name)


def counted_by(counter: TokenCounter, chars_per_token: float) -> str:
    return counter.name if isinstance(counter, FileTokenizer) else f"{chars_per_token:g} characters a token"


def write_whole(out: Path, sessions: list[Session]) -> None:
    """All of it, or what was there before: never a part."""
    partial = out.with_name(f".partial-{os.getpid()}-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_sessions(partial, sessions)
        partial.replace(out)
    except OSError as exc:
        raise LoadgenError(f"--out {out}: {exc.strerror or exc}") from exc
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
