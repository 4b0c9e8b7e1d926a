"""The workload that a name stands for: so many sessions, modified, in a fixed order."""

from dataclasses import dataclass
from pathlib import Path

from loadgen.drawing import Bootstrap, FileSource, Mixture, ProfileSource, Source, with_shared_prompt
from loadgen.errors import LoadgenError
from loadgen.modifiers import Modifiers
from loadgen.profiles import load_profile, profile_names
from loadgen.trace import BadLines, parse_select, read_sessions
from loadgen.unknown_times import UnknownTimes
from loadgen.workload import Session
from loadgen.workload_name import Part, parse_workload_name


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    sessions: list[Session]
    skipped_lines: int = 0
    stand_in: bool = False
    """A file was not there and its fallback was used: a table must say so."""
    assumed_tool_times: int = 0
    """Tool calls of its files that did not say how long they took."""


def open_workload(
    name: str,
    *,
    sessions: int | None = None,
    seed: int = 0,
    modifiers: Modifiers | None = None,
    skip_bad_lines: bool = False,
    select: str | None = None,
    bootstrap: bool = False,
    shared_prompt_tokens: int = 0,
    fallback: str | None = None,
) -> Workload:
    """Profile ``name``, the file of that name, or ``mix:`` of both (``workload_name``).

    A shorter file starts again, with new ids; with ``bootstrap``, and in a mixture always, its sessions are
    drawn by seed. ``select`` (``field=value``), ``shared_prompt_tokens`` and ``fallback`` (the profile
    to take where a file does not exist) are for files.
    """
    modifiers = modifiers or Modifiers()
    modifiers.check()
    check_counts(sessions, shared_prompt_tokens)
    chosen = None if select is None else parse_select(select)
    named = parse_workload_name(name, Part("", chosen, shared_prompt_tokens, fallback))
    bad_lines, unknown = BadLines(skip=skip_bad_lines), UnknownTimes()
    is_drawn = bootstrap or named.is_mixture
    sources = tuple(open_part(part, modifiers, bad_lines, unknown, is_drawn=is_drawn) for part in named.parts)
    source = Mixture(sources, tuple(part.weight for part in named.parts)) if named.is_mixture else sources[0]
    count = source.length if sessions is None else sessions
    if count is None:
        raise LoadgenError(f"--sessions is needed with {named.label!r}; only a file has a length of its own")
    return Workload(
        named.label,
        [modifiers.apply(source.session(i, seed)) for i in range(count)],
        bad_lines.count,
        stand_in=any(is_stood_in_for(part) for part in named.parts),
        assumed_tool_times=unknown.assumed,
    )


def check_counts(sessions: int | None, shared_prompt_tokens: int) -> None:
    if sessions is not None and sessions < 1:
        raise LoadgenError(f"--sessions is {sessions}; allowed: 1 or more")
    if shared_prompt_tokens < 0:
        raise LoadgenError(f"--shared-prompt-tokens is {shared_prompt_tokens}; allowed: 0 or more")


def is_stood_in_for(part: Part) -> bool:
    if part.fallback is None:
        return False
    if part.fallback not in profile_names():
        raise LoadgenError(f"--fallback is {part.fallback!r}; allowed: {', '.join(profile_names())}")
    return part.name not in profile_names() and not Path(part.name).is_file()


def open_part(
    part: Part, modifiers: Modifiers, bad_lines: BadLines, unknown: UnknownTimes, *, is_drawn: bool
) -> Source:
    name = part.fallback if part.fallback is not None and is_stood_in_for(part) else part.name
    if name in profile_names():
        return ProfileSource(load_profile(name), part.modifiers)
    path = Path(name)
    if not path.is_file():
        raise LoadgenError(
            f"--workload {name!r} is no file and no profile; profiles: {', '.join(profile_names())}"
        )
    sessions = usable_sessions(path, part, modifiers, bad_lines, unknown)
    return Bootstrap(path.name, sessions) if is_drawn else FileSource(sessions)


def usable_sessions(
    path: Path, part: Part, modifiers: Modifiers, bad_lines: BadLines, unknown: UnknownTimes
) -> list[Session]:
    system_id = f"{path.name} {part.select or ''}".strip()
    found = [
        with_shared_prompt(session, part.shared_prompt_tokens, system_id)
        for session in unknown.replace(list(read_sessions(path, bad_lines=bad_lines, select=part.select)))
    ]
    begun = [part.modifiers.apply(session) for session in found if part.modifiers.can_begin(session)]
    usable = [session for session in begun if modifiers.can_begin(session)]
    if not usable:
        raise LoadgenError(
            f"{path}: no session can begin; allowed: a longer --max-context-tokens than its first prompt"
        )
    return usable
