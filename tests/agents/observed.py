"""What the proxy made of a run, read from its event log: sessions, their turns, and the tools in between.

Knows the log's vocabulary and nothing of frameworks; whom the sessions should have been is the tests' affair.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from marsproxy.core.command_text import command_digest
from marsproxy.core.events import Ending, ToolObserved, ToolPhase, TurnArrived, TurnEnded
from marsproxy.core.evidence import TurnKind
from marsproxy.log_reader import read_log
from marsproxy.wire.endings import COMMANDS


@dataclass(slots=True)
class SeenTurn:
    arrived: TurnArrived
    ended: TurnEnded | None = None

    @property
    def kind(self) -> TurnKind:
        return self.arrived.kind

    @property
    def has_finished(self) -> bool:
        return self.ended is not None and self.ended.ending is Ending.FINISHED


@dataclass(slots=True)
class SeenSession:
    id: str
    parent: str | None
    turns: list[SeenTurn] = field(default_factory=list)

    @property
    def kinds(self) -> list[TurnKind]:
        return [turn.kind for turn in self.turns]

    @property
    def commands(self) -> list[str]:
        """Digests of the commands that its answers asked for, in order."""
        return [digest for turn in self.turns if turn.ended for digest in turn.ended.command_digests]


@dataclass(slots=True)
class Observed:
    sessions: dict[str, SeenSession] = field(default_factory=dict)
    runs: list[ToolObserved] = field(default_factory=list)
    """Commands that a gateway finished."""
    levels: dict[str, int] = field(default_factory=dict)
    """Turns by the evidence that settled whose they are; of the last process of the proxy."""

    @property
    def roots(self) -> list[SeenSession]:
        return [session for session in self.sessions.values() if session.parent is None]

    @property
    def children(self) -> list[SeenSession]:
        return [session for session in self.sessions.values() if session.parent is not None]

    def unfinished(self) -> list[TurnEnded | TurnArrived]:
        turns = [turn for session in self.sessions.values() for turn in session.turns]
        return [turn.ended or turn.arrived for turn in turns if not turn.has_finished]

    def unexpected(self, *allowed: TurnKind) -> list[tuple[str, list[str]]]:
        """Sessions whose first turn is not the first, or with a later one that is no continuation."""
        fine = {TurnKind.CONTINUATION, *allowed}
        return [
            (session.id, [kind.value for kind in session.kinds])
            for session in self.sessions.values()
            if session.kinds[0] is not TurnKind.FIRST or not fine.issuperset(session.kinds[1:])
        ]

    def unmatched_gaps(self, *, has_own_commands: bool = False) -> list[str]:
        """Commands that answers asked for and that are not the ones that the gateway ran, session by
        session; each gateway session ran those of one agent. That by which an agent says that it is done
        belongs to no gap, nor, of a framework that ``has_own_commands``, what no answer asked for."""
        ran: dict[str, list[str | None]] = {}
        last_words = set(map(command_digest, COMMANDS))
        wanted = {digest for session in self.sessions.values() for digest in session.commands}
        for run in self.runs:
            if run.command_digest in last_words:
                continue
            if run.command_digest in wanted or not has_own_commands:
                ran.setdefault(run.gateway_session, []).append(run.command_digest)
        asked = Counter(tuple(session.commands) for session in self.sessions.values())
        executed = Counter(tuple(digests) for digests in ran.values())
        return [f"{n} asked for {what}" for what, n in (asked - executed).items()] + [
            f"{n} ran {what}" for what, n in (executed - asked).items()
        ]


def read_observed(directory: Path) -> Observed:
    seen = Observed()
    open_turns: dict[str, SeenTurn] = {}
    for line in read_log(directory):
        match line.entry:
            case TurnArrived() as arrived:
                session = seen.sessions.setdefault(
                    arrived.session_id, SeenSession(arrived.session_id, arrived.parent_session_id)
                )
                open_turns[arrived.turn_id] = turn = SeenTurn(arrived)
                session.turns.append(turn)
            case TurnEnded() as ended:
                open_turns.pop(ended.turn_id).ended = ended
            case ToolObserved(phase=ToolPhase.FINISHED) as run:
                seen.runs.append(run)
    return seen
