"""Which turns had the engine to themselves, and what is learned from those that had not."""

from loadgen.calibration.observations import MAX_SIGNATURES, OTHERS, Observations, observe
from loadgen.event_log import LogLine
from marsproxy.core.commands import Command, ForgetSession, ForwardTurn
from marsproxy.core.events import (
    Ending,
    Event,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.log_format import Entry, LinesLost


def seen(*entries: tuple[float, Entry], process: str = "p") -> Observations:
    return observe(LogLine(process, now, entry) for now, entry in entries)


def begun(
    turn: str, now: float, *, backend: str = "gpu", is_streaming: bool = True
) -> list[tuple[float, Event | Command]]:
    arrival = TurnArrived(turn, f"s-{turn}", TurnKind.FIRST, "", "", 250, is_streaming=is_streaming)
    return [(now, arrival), (now, ForwardTurn(turn, backend, 0, "new"))]


def ended(turn: str, now: float, ending: Ending = Ending.FINISHED) -> tuple[float, Event]:
    return now, TurnEnded(turn, ending, 1000, 0, 100)


def test_a_turn_alone() -> None:
    """Both phases; bytes are what the estimate was made of."""
    found = seen(*begun("a", 10.0), (11.0, TurnFirstToken("a")), ended("a", 15.0))
    [turn] = found.turns
    assert (turn.prefill_s, turn.decode_s, turn.total_s) == (1.0, 4.0, None)
    assert list(found.bytes_per_token) == [1.0]


def test_only_the_phase_that_was_shared_is_left_out() -> None:
    """The second begins in the middle of the first's answer."""
    found = seen(
        *begun("a", 10.0),
        (11.0, TurnFirstToken("a")),
        *begun("b", 13.0),
        ended("a", 15.0),
        (16.0, TurnFirstToken("b")),
        ended("b", 20.0),
    )
    assert [(turn.prefill_s, turn.decode_s) for turn in found.turns] == [(1.0, None), (None, 4.0)]
    assert found.finished == 2


def test_a_short_overlap_is_nearly_alone() -> None:
    """Less than a twentieth."""
    found = seen(*begun("a", 10.0), (11.0, TurnFirstToken("a")), *begun("b", 14.9), ended("a", 15.0))
    assert [(turn.prefill_s, turn.decode_s) for turn in found.turns] == [(1.0, 4.0)]


def test_backends_and_processes_do_not_disturb_each_other() -> None:
    """The same turn id, at the same time."""
    of_one = [*begun("a", 1.0), (2.0, TurnFirstToken("a")), ended("a", 4.0)]
    lines = [LogLine(name, now, entry) for now, entry in of_one for name in "pq"]
    assert [turn.prefill_s for turn in observe(lines).turns] == [1.0, 1.0]
    other = [*begun("b", 1.5, backend="other"), ended("b", 5.0)]
    both = sorted([*of_one, *other], key=lambda timed: timed[0])
    assert [turn.decode_s for turn in seen(*both).turns if turn.prefill_s] == [2.0]


def test_what_is_not_known_teaches_nothing() -> None:
    """No usage, aborted, around a gap, or beside a turn from before the log begins."""
    assert seen(*begun("a", 1.0), (2.0, TurnEnded("a", Ending.FINISHED))).without_usage == 1
    assert seen(*begun("a", 1.0), ended("a", 2.0, Ending.ABORTED)).finished == 0
    assert seen(*begun("a", 1.0), (1.5, LinesLost(3)), ended("a", 2.0)).turns == []
    assert (
        seen(*begun("a", 1.0), ended("older", 1.5), (1.6, TurnFirstToken("a")), ended("a", 2.0)).turns == []
    )


def test_an_answer_that_was_not_streamed_has_only_its_whole() -> None:
    [turn] = seen(*begun("a", 1.0, is_streaming=False), (3.9, TurnFirstToken("a")), ended("a", 4.0)).turns
    assert (turn.prefill_s, turn.decode_s, turn.total_s) == (None, None, 3.0)


def test_gaps_are_by_the_tool_that_was_called() -> None:
    """To the session's next turn; a side call is none, and a forgotten session has no next."""

    def turn(name: str, now: float, kind: TurnKind) -> list[tuple[float, Entry]]:
        arrival = TurnArrived(name, "s", kind, "", "", 1)
        end = TurnEnded(name, Ending.FINISHED, tool_signature="bash" if name == "a" else None)
        return [(now, arrival), (now, ForwardTurn(name, "gpu", 0, "x")), (now + 1, end)]

    found = seen(
        *turn("a", 0.0, TurnKind.FIRST),
        *turn("side", 2.0, TurnKind.SIDE),
        *turn("b", 5.0, TurnKind.CONTINUATION),
        *turn("c", 16.0, TurnKind.CONTINUATION),
        (18.0, ForgetSession("s")),
        *turn("d", 20.0, TurnKind.CONTINUATION),
    )
    assert {name: list(gaps) for name, gaps in found.gap_s.items()} == {"bash": [4.0], "none": [10.0]}


def test_kinds_of_tools_are_bounded() -> None:
    tools = [
        (0.0, ToolObserved("e", ToolPhase.FINISHED, "g", run_s=1.0, tool_signature=f"tool{n}"))
        for n in range(MAX_SIGNATURES + 5)
    ]
    found = seen(*tools)
    assert len(found.tool_s) == MAX_SIGNATURES + 1
    assert len(found.tool_s[OTHERS]) == 5
