"""What an event log says about engine and tools: a stream of lines in, samples out.

An engine's step times can only be read off a turn that had the engine to itself, so each backend has a
clock of the seconds in which it was shared, and a turn notes its reading at each of its steps. Unknown
usage, an aborted turn, and a turn around which lines are missing teach nothing. Kept besides the samples:
the open turns, and the latest end of each session that is not forgotten.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from loadgen.event_log import LogLine
from marsproxy.core.commands import ForgetSession, ForwardTurn
from marsproxy.core.events import (
    BYTES_PER_TOKEN,
    BackendObserved,
    Ending,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.log_format import LinesLost, StateAdopted

MAX_SHARED = 0.05
"""Share of a phase in which others may have been in flight: what they cost is then below the noise."""
NO_TOOL = "none"
"""Signature of the gap after an answer that calls no tool."""
MAX_SIGNATURES = 500
"""Kinds of tools that are told apart; later ones are counted as ``OTHERS``."""
OTHERS = "others"


@dataclass(frozen=True, slots=True)
class TurnSample:
    """A finished turn that had its backend to itself for at least one of its phases."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill_s: float | None
    """From forwarding to the first token; None when that phase was shared, or not seen (no stream)."""
    decode_s: float | None
    """From the first token to the end."""
    total_s: float | None
    """Both, of an answer that was not streamed."""


@dataclass(slots=True)
class Observations:
    turns: list[TurnSample] = field(default_factory=list)
    finished: int = 0
    """Turns that ended well, whatever could be learned from them."""
    without_usage: int = 0
    """Of those, turns whose usage or cached tokens the backend did not tell."""
    tool_s: "dict[str, array[float]]" = field(default_factory=dict)
    """Run times, by program."""
    gap_s: "dict[str, array[float]]" = field(default_factory=dict)
    """From a turn's end to the session's next turn, by the name of the tool that the answer called."""
    bytes_per_token: "array[float]" = field(default_factory=lambda: array("d"))
    kv_tokens: int | None = None
    """Largest pool that a backend reported."""


@dataclass(slots=True)
class _Backend:
    in_flight: int = 0
    shared_s: float = 0.0
    at_s: float = 0.0

    def shared_until(self, now: float) -> float:
        """Seconds so far in which more than one turn was in flight."""
        if self.in_flight > 1:
            self.shared_s += now - self.at_s
        self.at_s = now
        return self.shared_s


@dataclass(slots=True)
class _Turn:
    arrival: TurnArrived
    backend: _Backend | None = None
    forwarded_s: float = 0.0
    shared_at_forward_s: float = 0.0
    first_token_s: float | None = None
    shared_at_first_token_s: float = 0.0
    is_spoilt: bool = False


@dataclass(slots=True)
class _Process:
    """One proxy's open turns and resting sessions."""

    found: Observations
    turns: dict[str, _Turn] = field(default_factory=dict)
    backends: dict[str, _Backend] = field(default_factory=dict)
    ends: dict[str, tuple[float, str]] = field(default_factory=dict)
    """By session: when its latest turn ended, and which tool it called."""

    def take(self, line: LogLine) -> None:
        now = line.now
        match line.entry:
            case TurnArrived() as event:
                self.turns[event.turn_id] = _Turn(event)
                self._gap_ended(event, now)
            case ForwardTurn(turn_id=turn_id, backend=backend) if turn_id in self.turns:
                self._forwarded(self.turns[turn_id], backend, now)
            case TurnFirstToken(turn_id=turn_id) if turn_id in self.turns:
                self._first_token(self.turns[turn_id], now)
            case TurnEnded() as event if event.turn_id in self.turns:
                self._ended(self.turns.pop(event.turn_id), event, now)
            case TurnEnded():
                # It began where the log does not reach any more: nobody beside it was alone.
                for turn in self.turns.values():
                    turn.is_spoilt = True
            case ToolObserved(phase=ToolPhase.FINISHED, run_s=float(run_s)) as tool:
                _add(self.found.tool_s, tool.tool_signature or "unknown", run_s)
            case BackendObserved(kv_tokens_total=int(tokens)):
                self.found.kv_tokens = max(tokens, self.found.kv_tokens or 0)
            case ForgetSession(session_id=session_id):
                self.ends.pop(session_id, None)
            case LinesLost() | StateAdopted():
                self.turns.clear()
                self.backends.clear()
                self.ends.clear()

    def _forwarded(self, turn: _Turn, name: str, now: float) -> None:
        turn.backend = backend = self.backends.setdefault(name, _Backend())
        turn.forwarded_s, turn.shared_at_forward_s = now, backend.shared_until(now)
        backend.in_flight += 1

    def _first_token(self, turn: _Turn, now: float) -> None:
        if turn.backend is not None:
            turn.first_token_s, turn.shared_at_first_token_s = now, turn.backend.shared_until(now)

    def _ended(self, turn: _Turn, event: TurnEnded, now: float) -> None:
        if turn.backend is None:
            return
        shared_s = turn.backend.shared_until(now)
        turn.backend.in_flight -= 1
        if event.ending is not Ending.FINISHED:
            return
        self.found.finished += 1
        if turn.arrival.kind is not TurnKind.SIDE:
            self.ends[turn.arrival.session_id] = (now, event.tool_signature or NO_TOOL)
        if event.prompt_tokens:
            read_bytes = turn.arrival.prompt_tokens_estimate * BYTES_PER_TOKEN
            self.found.bytes_per_token.append(read_bytes / event.prompt_tokens)
        if event.prompt_tokens is None or event.cached_tokens is None or event.completion_tokens is None:
            self.found.without_usage += 1
            return
        if turn.is_spoilt:
            return
        prefill_s = decode_s = total_s = None
        if turn.arrival.is_streaming and turn.first_token_s is not None:
            prefill_s = _alone(
                turn.first_token_s - turn.forwarded_s, turn.shared_at_first_token_s - turn.shared_at_forward_s
            )
            decode_s = _alone(now - turn.first_token_s, shared_s - turn.shared_at_first_token_s)
        else:
            total_s = _alone(now - turn.forwarded_s, shared_s - turn.shared_at_forward_s)
        if prefill_s is not None or decode_s is not None or total_s is not None:
            tokens = event.prompt_tokens, event.cached_tokens, event.completion_tokens
            self.found.turns.append(TurnSample(*tokens, prefill_s, decode_s, total_s))

    def _gap_ended(self, event: TurnArrived, now: float) -> None:
        if event.kind is TurnKind.SIDE:
            return
        if (end := self.ends.pop(event.session_id, None)) is not None:
            ended_s, signature = end
            _add(self.found.gap_s, signature, now - ended_s)


def observe(lines: Iterable[LogLine]) -> Observations:
    found = Observations()
    processes: dict[str, _Process] = {}
    for line in lines:
        if (process := processes.get(line.process)) is None:
            process = processes[line.process] = _Process(found)
        process.take(line)
    return found


def _alone(seconds: float, shared_s: float) -> float | None:
    return seconds if seconds > 0 and shared_s <= MAX_SHARED * seconds else None


def _add(samples: "dict[str, array[float]]", signature: str, value: float) -> None:
    if signature not in samples and len(samples) >= MAX_SIGNATURES:
        signature = OTHERS
    samples.setdefault(signature, array("d")).append(value)
