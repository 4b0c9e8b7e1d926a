"""What clients were answered against what backends served: nothing lost, nothing twice.

Pure: attempts and request logs in, figures and violations out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec

from loadgen.engine.request_log import RequestLine
from tests.scale.sessions import Attempt, Seen


@dataclass(frozen=True)
class TurnBooks:
    turns: int
    attempts: int
    answered: int
    died: int
    """Attempts whose connection broke, to the proxy or from it to the backend."""
    refused: int
    served: int
    """Requests that backends finished, of those that were asked."""
    served_for_nobody: int
    """Of these, finished although the connection had died: the work was asked again."""
    most_attempts: int
    """For one turn."""
    turns_asked_again: int
    changed_sessions: int
    """Sessions that the proxy did not know again in a later turn."""
    changed_named: int
    """Of these, sessions that say who they are."""
    violations: list[str]


def read_served(paths: Iterable[Path]) -> list[RequestLine]:
    """All lines; the last of a killed engine may lack its end."""
    found: list[RequestLine] = []
    for path in paths:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        found += [msgspec.json.decode(line, type=RequestLine) for line in lines if line.endswith(b"\n")]
    return found


def balance(attempts: Sequence[Attempt], served: Iterable[RequestLine], lost: Iterable[str]) -> TurnBooks:
    finished = Counter(line.id for line in served if line.what == "finished")
    by_turn: dict[tuple[int, str], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_turn[attempt.session, attempt.id.rpartition(".")[0]].append(attempt)
    seen = Counter(attempt.seen for attempt in attempts)
    asked = {attempt.id for attempt in attempts}
    violations = [f"turn {turn} is lost" for turn in lost]
    violations += [f"{each} was served and never asked" for each in finished if each not in asked]
    violations += [fault for attempt in attempts for fault in _faults_of(attempt, finished[attempt.id])]
    return TurnBooks(
        turns=len(by_turn),
        attempts=len(attempts),
        answered=seen[Seen.ANSWERED],
        died=seen[Seen.DIED],
        refused=seen[Seen.REFUSED],
        served=finished.total(),
        served_for_nobody=sum(
            finished[attempt.id] for attempt in attempts if attempt.seen is not Seen.ANSWERED
        ),
        most_attempts=max((len(each) for each in by_turn.values()), default=0),
        turns_asked_again=sum(len(each) > 1 for each in by_turn.values()),
        changed_sessions=_changed_sessions(attempts),
        changed_named=_changed_sessions(each for each in attempts if each.is_named),
        violations=violations,
    )


def _faults_of(attempt: Attempt, finished: int) -> Iterable[str]:
    if attempt.seen is Seen.ANSWERED and finished != 1:
        yield f"{attempt.id} was answered once and served {finished} times"
    elif finished > 1:
        yield f"{attempt.id} was served {finished} times"
    if attempt.seen is Seen.REFUSED and finished:
        yield f"{attempt.id} was refused and served"
    if attempt.seen in (Seen.WRONG, Seen.SILENT):
        yield f"{attempt.id}: {attempt.seen.value}, status {attempt.status}: {attempt.why}"


def _changed_sessions(attempts: Iterable[Attempt]) -> int:
    """By the name that the proxy gives them with an answer."""
    names: dict[str, set[str]] = defaultdict(set)
    for attempt in attempts:
        if attempt.mars_session is not None and attempt.seen is Seen.ANSWERED:
            names[attempt.id.split(".")[0]].add(attempt.mars_session)
    return sum(len(each) > 1 for each in names.values())


def recovered_s(attempts: Iterable[Attempt], fault_s: float, during: float = 0.0) -> float | None:
    """From a fault to the end of the first turn asked after it that was answered; None if none was.

    Args:
        during: seconds after the fault at which to begin to look, for faults that take effect late.
    """
    ends = [a.ended_s for a in attempts if a.seen is Seen.ANSWERED and a.asked_s >= fault_s + during]
    return min(ends) - fault_s if ends else None


def longest_silence_s(attempts: Iterable[Attempt], from_s: float, to_s: float) -> float:
    """The longest time between two answers, whoever got them."""
    ends = sorted(a.ended_s for a in attempts if a.seen is Seen.ANSWERED and from_s <= a.ended_s <= to_s)
    edges = [from_s, *ends, to_s]
    return max(after - before for before, after in pairwise(edges))
