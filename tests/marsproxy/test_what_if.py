"""Other settings under recorded traffic: what is counted, and what moves with a later start."""

from dataclasses import replace
from pathlib import Path

import pytest

from marsproxy.core.commands import ForwardTurn, HoldTurn, Reason, RejectTurn
from marsproxy.core.events import (
    BackendObserved,
    Ending,
    Event,
    TimerFired,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policies import policy_kind
from marsproxy.core.settings import AdmissionSettings, ConfigError, PolicySettings
from marsproxy.log_reader import LogEntry, process_logs
from marsproxy.replay_command import changed, run_replay
from marsproxy.what_if import Tally, WhatIf
from tests.marsproxy.recorded import BACKEND, SETTINGS, Traffic


def settings_with(**admission: float) -> PolicySettings:
    return replace(SETTINGS, admission=replace(SETTINGS.admission, **admission))  # type: ignore[arg-type]


def asked(log: Path, settings: PolicySettings) -> WhatIf:
    [process] = process_logs(log)
    what_if = WhatIf(policy_kind("mars").make(settings, (BACKEND,)))
    what_if.run(process.entries())
    assert what_if.stopped is None
    return what_if


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("log")
    Traffic(directory).record()
    return directory


def test_the_same_settings_decide_the_same(log: Path) -> None:
    """Both columns agree when nothing is changed."""
    same = asked(log, SETTINGS)
    assert same.recorded.held > 0
    assert (same.asked.forwarded, same.asked.refused) == (same.recorded.forwarded, same.recorded.refused)
    assert list(same.asked.held_s) == pytest.approx(list(same.recorded.held_s))


def test_a_larger_budget_holds_fewer_and_a_smaller_one_more(log: Path) -> None:
    same = asked(log, SETTINGS)
    large, small = (asked(log, settings_with(kv_target=target)) for target in (2.0, 0.3))
    assert large.asked.held < same.asked.held < small.asked.held
    assert large.recorded.held_s == small.recorded.held_s


def arrived(turn: str) -> TurnArrived:
    return TurnArrived(turn, f"s-{turn}", TurnKind.FIRST, "", "", 10)


def lines(*events: tuple[float, Event]) -> list[LogEntry]:
    """Each arrival is followed by the command that forwarded it at once."""
    found = []
    for now, event in events:
        found.append(LogEntry(now, now, event))
        if isinstance(event, TurnArrived):
            found.append(LogEntry(now, now, ForwardTurn(event.turn_id, BACKEND, 0, "new")))
    return found


def one_at_a_time() -> WhatIf:
    admission = AdmissionSettings(fallback_concurrency=1, idle_gap_s=0.0, max_hold_s=50.0)
    return WhatIf(policy_kind("mars").make(PolicySettings(admission), (BACKEND,)))


def test_an_answer_moves_with_its_turn() -> None:
    """Recorded together for 10 s each; one at a time the third begins after the second's shifted end."""
    what_if = one_at_a_time()
    events: list[tuple[float, Event]] = [(0.0, arrived(turn)) for turn in "abc"]
    events += [(4.0, TurnFirstToken(turn)) for turn in "abc"]
    events += [(10.0, TurnEnded(turn, Ending.FINISHED)) for turn in "abc"]
    what_if.run(lines(*events, (45.0, BackendObserved(BACKEND))))
    assert what_if.stopped is None
    assert (what_if.asked.forwarded, what_if.asked.held) == (3, 2)
    assert list(what_if.asked.held_s) == [10.0, 20.0]


def test_a_client_that_leaves_leaves_when_it_did() -> None:
    """Held or not."""
    what_if = one_at_a_time()
    what_if.run(
        lines(
            (0.0, arrived("a")),
            (0.0, arrived("b")),
            (5.0, TurnEnded("b", Ending.ABORTED)),
            (20.0, TurnEnded("a", Ending.ABORTED)),
            (21.0, BackendObserved(BACKEND)),
        )
    )
    assert (what_if.asked.forwarded, list(what_if.asked.held_s)) == (1, [5.0])


def test_it_has_a_timer_of_its_own() -> None:
    """A turn that it holds for too long is refused when its own settings say, and is over then."""
    what_if = one_at_a_time()
    what_if.run(
        lines(
            (0.0, arrived("a")),
            (0.0, arrived("b")),
            (7.0, TimerFired()),
            (99.0, TurnFirstToken("b")),
            (100.0, TurnEnded("b", Ending.FINISHED)),
        )
    )
    assert (what_if.asked.forwarded, what_if.asked.refused, list(what_if.asked.held_s)) == (1, 1, [50.0])
    assert what_if.policy.open_turns == 1


def test_a_turn_held_twice_is_one() -> None:
    """Its wait begins with the first."""
    tally = Tally()
    for now in (1.0, 2.0):
        tally.take([HoldTurn("t", Reason.KV_FULL, 1)], now)
    assert tally.held == 1
    tally.take([RejectTurn("t", Reason.HELD_TOO_LONG, 1.0)], 4.0)
    assert (tally.held, tally.refused, tally.held_quantile_s(0.95)) == (1, 1, 3.0)
    assert Tally().held_quantile_s(0.5) is None


def test_settings_are_changed_by_name() -> None:
    """The others stay as they were recorded."""
    recorded = PolicySettings(AdmissionSettings(look_ahead=7))
    new = changed(recorded, ["admission.kv_target=0.8", "sessions.max_sessions=50"])
    assert (new.admission.kv_target, new.admission.look_ahead, new.sessions.max_sessions) == (0.8, 7, 50)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("admission.kv_targt=0.8", "did you mean admission.kv_target"),
        ("admission.kv_target", "KEY=VALUE"),
        ("admission.kv_target=much", "admission.kv_target"),
        ("admission.kv_target=9", "0.05 to 2"),
    ],
)
def test_a_change_that_is_none_is_explained(change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        changed(SETTINGS, [change])


def test_the_command_shows_both_side_by_side(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_replay(log, policy="mars", changes=["admission.kv_target=2.0"], show=1) == 0
    said = capsys.readouterr().out
    for word in ("recorded (mars)", "admission.kv_target=2.0", "turns forwarded", "held for, p95"):
        assert word in said
