"""What an import says at its end: what there is now, what was left out and why, what to do with it."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from loadgen.importers.import_run import ImportRun
from loadgen.unknown_times import tools_of
from loadgen.workload import Session

MINUTE_S, HOUR_S = 60, 3600
CONTEXT_TOKENS = 120_000
"""Sessions that grow beyond it are ended there by the commands that are told: they fit the pool that is left
beside the weights on the simulator's accelerator (159 thousand tokens), and the contexts of most servers."""


def lines_of(sessions: list[Session], run: ImportRun, out: Path, counted_by: str) -> Iterator[str]:
    yield f"{out}: {number(len(sessions), 'session')} from {number(run.files_read, 'file')}"
    yield from (f"  {name:<9} {what}" for name, what in rows(sessions, run, counted_by) if what)
    options = f"--workload {shlex.quote(str(out))} --concurrency 4 --max-gap-s 10"
    if longest_prompt(sessions) > CONTEXT_TOKENS:
        options += f" --max-context-tokens {CONTEXT_TOKENS}"
    yield f"replay it:   loadgen run --target http://127.0.0.1:8080 {options}"
    yield f"simulate it: loadgen simulate {options}"


def rows(sessions: list[Session], run: ImportRun, counted_by: str) -> Iterator[tuple[str, str]]:
    yield "of", joined(Counter(session.source or "a trace" for session in sessions))
    if children := sum(session.parent is not None for session in sessions):
        yield "", f"{children} of sub-agents"
    yield "turns", f"{sum(len(session.turns) for session in sessions):,}"
    yield "tokens", tokens(sessions)
    yield "counted", how_counted(sessions, counted_by)
    yield "tools", tool_time(sessions)
    yield "pauses", pause_time(sessions)
    yield "left out", joined(left_out(run))


def tokens(sessions: list[Session]) -> str:
    sent = sum(prompt for session in sessions for prompt in prompts(session))
    written = sum(turn.output_tokens for session in sessions for turn in session.turns)
    return f"{sent:,} in prompts, the longest {longest_prompt(sessions):,}; {written:,} in answers"


def longest_prompt(sessions: list[Session]) -> int:
    return max(prompt for session in sessions for prompt in prompts(session))


def prompts(session: Session) -> Iterator[int]:
    context = session.system_tokens
    for turn in session.turns:
        context += turn.new_tokens
        yield context
        context += turn.output_tokens


def how_counted(sessions: list[Session], counted_by: str) -> str:
    """By sessions; one in which only some calls had usage is both."""
    names = {
        "usage": "recorded usage",
        "mixed": f"recorded usage, and by {counted_by} where there is none",
        None: "the trace",
    }
    found = Counter(names.get(session.tokens_by, counted_by) for session in sessions)
    return "; ".join(f"{number(times, 'session')} by {name}" for name, times in found.most_common())


def tool_time(sessions: list[Session]) -> str:
    tools = tools_of(sessions)
    known = [tool.duration_s for tool in tools if tool.duration_s is not None]
    unknown = len(tools) - len(known)
    said = f"{number(len(tools), 'gap')} with tools, {duration(known)}"
    return said + (f" in {len(known):,} of them; the times of {unknown:,} are not known" if unknown else "")


def pause_time(sessions: list[Session]) -> str:
    pauses = [turn.think_s for session in sessions for turn in session.turns if turn.think_s is not None]
    return f"{len(pauses):,} of the user, {duration(pauses)}" if pauses else ""


def left_out(run: ImportRun) -> Counter[str]:
    notes = run.reading.notes
    counts = Counter({name: times for name, times in notes.counts.items() if times})
    if cut := counts.pop("compactions", 0):
        counts["rewritten histories (a session ends, another begins)"] = cut
    if notes.broken:
        counts["lines or files that cannot be read (told above)"] = len(notes.broken)
    if run.files_passed_over:
        counts["other files"] = run.files_passed_over
    return counts


def joined(counts: Counter[str]) -> str:
    return ", ".join(f"{name}: {times:,}" for name, times in counts.most_common())


def number(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def duration(times: Iterable[float]) -> str:
    total = sum(times)
    if total < MINUTE_S:
        return f"{total:.1f} s"
    if total < HOUR_S:
        return f"{total / MINUTE_S:.1f} min"
    return f"{total / HOUR_S:.1f} h"
