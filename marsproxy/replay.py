"""Gives the events of a recorded process to a policy again and compares what it commands.

The policy is made from the header of the log, so what it answers must be what was recorded: if it is
not, the policy depends on something that is no event, or its code has changed since. Owns the pairing of
events with their commands and the comparison; it must not know where lines come from or how the result is
shown. Nothing is kept of an event that was answered as before.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from marsproxy.core.commands import Command
from marsproxy.core.events import Event
from marsproxy.core.log_format import COMMANDS, EVENTS, LinesLost, StateAdopted
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.log_reader import EventLogError, LogEntry


@dataclass(frozen=True, slots=True)
class Decision:
    """One event and the commands that were recorded after it."""

    number: int
    """Of the event in the log of its process; 1 is the first."""
    now: float
    event: Event
    commands: tuple[Command, ...]
    is_last: bool = False
    """A killed process may have written only some of its commands."""


@dataclass(frozen=True, slots=True)
class Difference:
    decision: Decision
    got: tuple[Command, ...]


@dataclass(slots=True)
class Comparison:
    """What a replay came to."""

    events: int = 0
    commands: int = 0
    different: int = 0
    """Events that were answered with other commands than recorded."""
    first: list[Difference] = field(default_factory=list)
    stopped: str | None = None
    """Why it could not go on to the end of the log."""
    failed: bool = False
    """It stopped because the policy failed, which it had not done before."""


class ReplayStopped(Exception):
    """The rest of a log cannot be replayed; the message says why."""


class PolicyFailed(ReplayStopped):
    """The policy raised something."""


def decisions(entries: Iterable[LogEntry]) -> Iterator[Decision]:
    """Events with their commands.

    Raises:
        ReplayStopped: lines are missing from here on, or the state is another.
        EventLogError: a command comes before any event.
    """
    number, now, event = 0, 0.0, None
    commands: list[Command] = []
    for line in entries:
        if isinstance(line.entry, COMMANDS):
            if event is None:
                raise EventLogError("the log begins with a command instead of an event")
            commands.append(line.entry)
            continue
        if event is not None:
            # Of lines that were lost after it, some may have been its commands.
            is_last = isinstance(line.entry, LinesLost)
            yield Decision(number, now, event, tuple(commands), is_last)
        if isinstance(line.entry, LinesLost):
            raise ReplayStopped(
                f"up to {line.entry.lines} lines were lost after event {number}: the disk was slow or full"
            )
        if isinstance(line.entry, StateAdopted):
            raise ReplayStopped(
                f"after event {number} it went on from other replicas' state, which this log does not have"
            )
        if isinstance(line.entry, EVENTS):
            number, now, event, commands = number + 1, line.now, line.entry, []
    if event is not None:
        yield Decision(number, now, event, tuple(commands), is_last=True)


def replay(policy: SchedulingPolicy, entries: Iterable[LogEntry], keep: int) -> Comparison:
    """Compare to the end of the log; details of the first ``keep`` differences are kept."""
    result = Comparison()
    try:
        for decision in decisions(entries):
            result.events += 1
            result.commands += len(decision.commands)
            got = tuple(answer(policy, decision.event, decision.now, decision.number))
            if not _is_same(decision, got):
                result.different += 1
                if len(result.first) < keep:
                    result.first.append(Difference(decision, got))
    except ReplayStopped as stop:
        result.stopped = str(stop)
        result.failed = isinstance(stop, PolicyFailed)
    return result


def answer(policy: SchedulingPolicy, event: Event, now: float, number: int) -> list[Command]:
    """What the policy commands.

    Raises:
        PolicyFailed: it has no answer.
    """
    try:
        return policy.handle(event, now)
    except Exception as error:  # whatever it is, it is what the replay was to find
        raise PolicyFailed(f"the policy failed at event {number}: {type(error).__name__}: {error}") from error


def _is_same(decision: Decision, got: tuple[Command, ...]) -> bool:
    if decision.is_last:
        return got[: len(decision.commands)] == decision.commands
    return got == decision.commands
