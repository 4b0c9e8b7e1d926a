"""The workload that a name or a file stands for: so many sessions, modified, in a fixed order."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadgen.errors import LoadgenError
from loadgen.modifiers import Modifiers
from loadgen.profiles import load_profile, profile_names
from loadgen.trace import BadLines, read_sessions
from loadgen.workload import Session


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    sessions: list[Session]
    skipped_lines: int = 0


def open_workload(
    name: str,
    *,
    sessions: int | None = None,
    seed: int = 0,
    modifiers: Modifiers | None = None,
    skip_bad_lines: bool = False,
) -> Workload:
    """Profile ``name``, or the file of that name. A shorter file starts again, with new ids."""
    modifiers = modifiers or Modifiers()
    modifiers.check()
    if sessions is not None and sessions < 1:
        raise LoadgenError(f"--sessions is {sessions}; allowed: 1 or more")
    if name in profile_names():
        if sessions is None:
            raise LoadgenError(
                f"--sessions is needed with the profile {name!r}; a file has a length of its own"
            )
        profile = load_profile(name)
        return Workload(name, [modifiers.apply(profile.session(i, seed)) for i in range(sessions)])
    return open_file(Path(name), sessions, modifiers, BadLines(skip=skip_bad_lines))


def open_file(path: Path, sessions: int | None, modifiers: Modifiers, bad_lines: BadLines) -> Workload:
    if not path.is_file():
        raise LoadgenError(
            f"--workload {str(path)!r} is no file and no profile; profiles: {', '.join(profile_names())}"
        )
    found = list(read_sessions(path, bad_lines=bad_lines))
    wanted = len(found) if sessions is None else sessions
    chosen = [numbered(found[i % len(found)], i // len(found)) for i in range(wanted)]
    return Workload(path.name, [modifiers.apply(session) for session in chosen], bad_lines.count)


def numbered(session: Session, lap: int) -> Session:
    """The same session again is another session; its traced arrival would come a second time, so it goes."""
    if lap == 0:
        return session
    return msgspec.structs.replace(session, id=f"{session.id}~{lap + 1}", arrival_s=None)
