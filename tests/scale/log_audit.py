"""The event logs of all replicas, held against each other and against the policy's promises.

Each replica writes the order of all, so where two of them stood together their logs are the same; every
turn that a log sees arrive has one end in it; and a log that is whole is replayed: its commands are what
the policy decides, and where somebody was let in, all that is promised fits. Pure: logs in, findings out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from marsproxy.core.commands import Command, ForwardTurn
from marsproxy.core.events import (
    StandingAlone,
    StandingTogether,
    TurnArrived,
    TurnBounced,
    TurnEnded,
    TurnResumed,
)
from marsproxy.core.log_format import StateAdopted
from marsproxy.core.policies import policy_kind
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.log_reader import EventLogError, LogEntry, ProcessLog, process_logs
from marsproxy.replay import Decision, ReplayStopped, decisions

ROUNDING_TOKENS = 1e-3
"""Sums of charges are kept as floats."""
SHOWN = 5
"""Differences of one kind that are told in full."""


@dataclass
class Stretch:
    """What one replica decided between two breaks: its start, standing alone, taking over another state."""

    replica: str
    is_alone: bool
    is_first: bool
    """From the process's very first event."""
    log: ProcessLog
    goes_on: bool = False
    """From the state of the stretch before it."""
    decisions: list[Decision] = field(default_factory=list)

    @property
    def bounds(self) -> tuple[float, float]:
        return self.decisions[0].now, self.decisions[-1].now


@dataclass(frozen=True)
class Separation:
    """A replica was on its own from here, with its part of what was free."""

    replica: str
    replicas: int
    whole: dict[str, float]
    """Tokens that all might promise on each backend, just before."""
    allowed: dict[str, float]
    """Tokens that it may promise by itself."""


@dataclass
class LogFindings:
    replicas: int = 0
    stretches: int = 0
    alone: int = 0
    """Of the stretches."""
    decisions: int = 0
    compared: int = 0
    """Decisions of one replica that another one's log has, too, counted for each pair."""
    replayed: int = 0
    admissions: int = 0
    """Sessions let in, of those replayed."""
    fullest_ratio: float = 0.0
    """Most that was promised beside others when one was let in, over what may be promised."""
    separations: list[Separation] = field(default_factory=list)
    """Of those replayed."""
    left_open: int = 0
    """Turns without an end, in logs that were closed well."""
    violations: list[str] = field(default_factory=list)

    def blame(self, found: Sequence[str]) -> None:
        self.violations += found[:SHOWN]
        if len(found) > SHOWN:
            self.violations.append(f"... and {len(found) - SHOWN} more like {found[-1]}")


def audit_logs(directories: Iterable[Path], *, is_settled: bool = True) -> LogFindings:
    """
    Args:
        is_settled: no turn was under way when the replicas were stopped.
    """
    findings = LogFindings()
    stretches: list[Stretch] = []
    for directory in directories:
        findings.replicas += 1
        for log in process_logs(directory):
            stretches += stretches_of(directory.name, log, findings)
    findings.stretches = len(stretches)
    findings.alone = sum(each.is_alone for each in stretches)
    findings.decisions = sum(len(each.decisions) for each in stretches)
    for index, one in enumerate(stretches):
        for other in stretches[index + 1 :]:
            if one.log is not other.log and not one.is_alone and not other.is_alone:
                _compare(one, other, findings)
    for stretch in stretches:
        findings.blame(list(double_ends(stretch)))
    for begun in (index for index, each in enumerate(stretches) if each.is_first):
        _replay(list(_from_start(stretches, begun)), findings)
    if is_settled and stretches:
        last = max((each for each in stretches if not each.is_alone), key=lambda each: each.bounds[1])
        findings.left_open = len(open_at_end(last))
        findings.blame([f"{last.replica}: turn {turn_id} has no end" for turn_id in open_at_end(last)])
    return findings


def stretches_of(replica: str, log: ProcessLog, findings: LogFindings) -> list[Stretch]:
    found: list[Stretch] = []
    is_first = log.is_whole
    for piece in _between_adoptions(log.entries()):
        stretch = Stretch(replica, is_alone=False, is_first=is_first, log=log)
        is_first = False
        found.append(stretch)
        try:
            for decision in decisions(piece):
                is_change = isinstance(decision.event, StandingAlone | StandingTogether)
                if is_change and stretch.decisions:
                    stretch = Stretch(replica, is_alone=False, is_first=False, log=log, goes_on=True)
                    found.append(stretch)
                stretch.is_alone = stretch.is_alone or isinstance(decision.event, StandingAlone)
                stretch.decisions.append(decision)
        except (ReplayStopped, EventLogError) as exc:
            findings.blame([f"{replica}: {exc}"])
    return [each for each in found if each.decisions]


def _between_adoptions(entries: Iterator[LogEntry]) -> Iterator[Iterator[LogEntry]]:
    """What was decided on from one state and its successors. Each must be read before the next."""
    is_over = False

    def piece() -> Iterator[LogEntry]:
        nonlocal is_over
        for line in entries:
            if isinstance(line.entry, StateAdopted):
                return
            yield line
        is_over = True

    while not is_over:
        yield piece()


def _compare(one: Stretch, other: Stretch, findings: LogFindings) -> None:
    """Where both were there, the same events at the same times with the same commands."""
    (one_from, one_to), (other_from, other_to) = one.bounds, other.bounds
    begin, end = max(one_from, other_from), min(one_to, other_to)
    ours = [each for each in one.decisions if begin < each.now < end]
    theirs = [each for each in other.decisions if begin < each.now < end]
    findings.compared += min(len(ours), len(theirs))
    if len(ours) != len(theirs):
        findings.blame([f"{one.replica} has {len(ours)} decisions where {other.replica} has {len(theirs)}"])
    findings.blame(
        [
            f"{one.replica} and {other.replica} differ at {mine.now}: {_words(mine)} and {_words(yours)}"
            for mine, yours in zip(ours, theirs, strict=False)
            if (mine.now, mine.event, mine.commands) != (yours.now, yours.event, yours.commands)
        ]
    )


def double_ends(stretch: Stretch) -> Iterator[str]:
    """A turn that ended twice, was sent more often than it arrived and bounced, or was sent after its end."""
    may_go: dict[str, int] = {}
    for decision in stretch.decisions:
        match decision.event:
            case TurnArrived(turn_id=turn_id):
                may_go[turn_id] = 1
            case TurnResumed(arrival=TurnArrived(turn_id=turn_id), backend=backend):
                may_go[turn_id] = 1 if backend is None else 0
            case TurnBounced(turn_id=turn_id) if turn_id in may_go:
                may_go[turn_id] += 1
            case TurnEnded(turn_id=turn_id):
                if turn_id not in may_go and stretch.is_first:
                    yield f"{stretch.replica}: turn {turn_id} ended without being under way"
                may_go.pop(turn_id, None)
        for command in decision.commands:
            if isinstance(command, ForwardTurn):
                left = may_go.get(command.turn_id)
                if left is None and stretch.is_first:
                    yield f"{stretch.replica}: turn {command.turn_id} was sent after its end"
                elif left == 0:
                    yield f"{stretch.replica}: turn {command.turn_id} was sent twice"
                elif left is not None:
                    may_go[command.turn_id] = left - 1


def open_at_end(stretch: Stretch) -> list[str]:
    under_way: dict[str, None] = {}
    for decision in stretch.decisions:
        match decision.event:
            case TurnArrived(turn_id=turn_id) | TurnResumed(arrival=TurnArrived(turn_id=turn_id)):
                under_way[turn_id] = None
            case TurnEnded(turn_id=turn_id):
                under_way.pop(turn_id, None)
    return list(under_way)


def _from_start(stretches: Sequence[Stretch], begun: int) -> Iterator[Stretch]:
    """What one policy decided: all of a process until it takes over another's state."""
    yield stretches[begun]
    for stretch in stretches[begun + 1 :]:
        if not stretch.goes_on:
            return
        yield stretch


def _replay(stretches: Sequence[Stretch], findings: LogFindings) -> None:
    stretch, header = stretches[0], stretches[0].log.header
    policy = policy_kind(header.policy).make(header.settings, header.backends)
    differences = []
    for decision in (each for stretch in stretches for each in stretch.decisions):
        if isinstance(decision.event, StandingAlone):
            whole = policy.budget_tokens(decision.now)
        commands = tuple(policy.handle(decision.event, decision.now))
        findings.replayed += 1
        if isinstance(decision.event, StandingAlone):
            findings.separations.append(
                Separation(
                    stretch.replica, decision.event.replicas, whole, policy.budget_tokens(decision.now)
                )
            )
        is_torn = decision.is_last and commands[: len(decision.commands)] == decision.commands
        if commands != decision.commands and not is_torn:
            differences.append(f"{stretch.replica}: replayed otherwise at {decision.now}: {_words(decision)}")
        for backend in admitted_to(commands):
            findings.admissions += 1
            _check_budget(policy, backend, decision.now, stretch.replica, findings)
    findings.blame(differences)


def admitted_to(commands: Iterable[Command]) -> list[str]:
    """Backends where a session was let in: a continuation has its place already."""
    return [c.backend for c in commands if isinstance(c, ForwardTurn) and c.decision in ("new", "return")]


def _check_budget(
    policy: SchedulingPolicy, backend: str, now: float, replica: str, findings: LogFindings
) -> None:
    """A session that is alone on a backend is let in whatever its size: it would never run."""
    limit = policy.budget_tokens(now).get(backend)
    if limit is None or len(policy.backends[backend].counted) < 2:
        return
    reserved = policy.reserved_tokens(now)[backend]
    findings.fullest_ratio = max(findings.fullest_ratio, reserved / limit)
    if reserved > limit + ROUNDING_TOKENS:
        findings.blame([f"{replica}: {reserved:.0f} of {limit:.0f} tokens promised on {backend} at {now}"])


def _words(decision: Decision) -> str:
    names = [type(command).__name__ for command in decision.commands]
    return f"{type(decision.event).__name__} {getattr(decision.event, 'turn_id', '')} -> {names}"
