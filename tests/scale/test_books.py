"""Books that are never wrong prove nothing: each fault that they look for is put in and found."""

from pathlib import Path

import pytest

from loadgen.engine.request_log import RequestLine, RequestLog
from marsproxy.core.commands import ForwardTurn
from marsproxy.core.events import (
    BackendObserved,
    Ending,
    Event,
    StandingAlone,
    TimerFired,
    TurnArrived,
    TurnEnded,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.log_format import StateAdopted
from marsproxy.core.policies import policy_kind
from marsproxy.core.settings import PolicySettings
from marsproxy.eventlog import EventLog, new_header
from tests.scale.budgets_seen import BudgetsSeen, Said, read_page
from tests.scale.log_audit import LogFindings, audit_logs
from tests.scale.sessions import Attempt, Seen
from tests.scale.turn_books import balance, longest_silence_s, read_served, recovered_s

BACKENDS = ("http://b:1",)

Told = tuple[float, Event | StateAdopted]


def attempt(name: str, seen: Seen = Seen.ANSWERED, **fields: object) -> Attempt:
    return Attempt(id=name, session=0, turn=0, asked_s=1.0, ended_s=2.0, seen=seen, **fields)  # type: ignore[arg-type]


def served(*ids: str) -> list[RequestLine]:
    return [RequestLine(each, 1.0, "finished", 1) for each in ids]


def test_one_answer_for_one_request_is_no_violation() -> None:
    attempts = [
        attempt("a.0.0", Seen.DIED),
        attempt("a.0.1"),
        attempt("a.1.0", Seen.REFUSED),
        attempt("a.1.1"),
    ]
    books = balance(attempts, served("a.0.1", "a.1.1", "a.0.0"), [])
    assert books.violations == []
    assert (books.turns, books.attempts, books.answered, books.died) == (2, 4, 2, 1)
    assert (books.turns_asked_again, books.most_attempts, books.served_for_nobody) == (2, 2, 1)


@pytest.mark.parametrize(
    ("attempts", "ids", "lost", "words"),
    [
        ([attempt("a.0.0")], ["a.0.0", "a.0.0"], [], "served 2 times"),
        ([attempt("a.0.0")], [], [], "served 0 times"),
        ([attempt("a.0.0", Seen.DIED)], ["a.0.0", "a.0.0"], [], "served 2 times"),
        ([attempt("a.0.0", Seen.REFUSED)], ["a.0.0"], [], "was refused and served"),
        ([attempt("a.0.0", Seen.WRONG)], [], [], "a.0.0: wrong"),
        ([attempt("a.0.0", Seen.SILENT)], [], [], "a.0.0: silent"),
        ([attempt("a.0.0")], ["a.0.0", "x"], [], "x was served and never asked"),
        ([attempt("a.0.0")], ["a.0.0"], ["a.1"], "turn a.1 is lost"),
    ],
)
def test_turns_that_do_not_balance(
    attempts: list[Attempt], ids: list[str], lost: list[str], words: str
) -> None:
    [violation] = balance(attempts, served(*ids), lost).violations
    assert words in violation


def test_a_session_that_is_not_known_again_is_counted() -> None:
    attempts = [attempt("a.0.0", mars_session="x"), attempt("a.1.0", mars_session="y")]
    attempts += [attempt(f"b.{turn}.0", mars_session=f"{turn}", is_named=True) for turn in range(2)]
    books = balance(attempts, served("a.0.0", "a.1.0", "b.0.0", "b.1.0"), [])
    assert (books.changed_sessions, books.changed_named) == (2, 1)


def test_recovery_is_a_turn_that_was_asked_after_the_fault() -> None:
    before = attempt("a.0.0")
    after = attempt("a.1.0")
    after.asked_s, after.ended_s = 5.0, 6.5
    assert recovered_s([before], 3.0) is None
    assert recovered_s([before, after], 3.0) == 3.5
    assert longest_silence_s([before, after], 1.0, 7.0) == 4.5


def test_an_engine_that_was_killed_in_a_line_has_said_the_others(tmp_path: Path) -> None:
    path = tmp_path / "served"
    log = RequestLog(path)
    log.begun("a")
    log.ended("a", 3, is_complete=True)
    with path.open("ab") as file:
        file.write(b'{"id":"b","at_s"')
    assert [line.what for line in read_served([path, tmp_path / "none"])] == ["begun", "finished"]


# -- event logs -----------------------------------------------------------------------------------------


def arrived(turn_id: str, session_id: str = "s", prompt_tokens: int = 100) -> TurnArrived:
    return TurnArrived(turn_id, session_id, TurnKind.FIRST, "", "", prompt_tokens)


def events(turns: int = 3) -> list[Told]:
    found: list[Told] = [(1.0, BackendObserved(BACKENDS[0], kv_tokens_total=10_000))]
    for number in range(turns):
        found.append((2.0 + number, arrived(f"t{number}", f"s{number}")))
        found.append((2.5 + number, TurnEnded(f"t{number}", Ending.FINISHED, 100, 0, 10)))
    return found


def write_log(
    directory: Path,
    told: list[Told],
    *,
    skips: int | None = None,
    spoils: int | None = None,
) -> None:
    """As a replica with the real policy does; ``skips`` and ``spoils`` are numbers of events."""
    header = new_header("mars", PolicySettings(), BACKENDS)
    policy = policy_kind("mars").make(header.settings, header.backends)
    log = EventLog(directory, 10**9, 8, header)
    for number, (now, event) in enumerate(told):
        if isinstance(event, StateAdopted):
            policy = policy_kind("mars").make(header.settings, header.backends)
            log.record(now, event)
            continue
        commands = policy.handle(event, now)
        if number == skips:
            continue
        log.record(now, event)
        for command in commands:
            is_spoiled = number == spoils and isinstance(command, ForwardTurn)
            log.record(now, ForwardTurn("t0", "elsewhere", 0, "new") if is_spoiled else command)
    log.close()


def audit(tmp_path: Path) -> LogFindings:
    return audit_logs(sorted(tmp_path.iterdir()))


def test_logs_that_agree(tmp_path: Path) -> None:
    write_log(tmp_path / "one", events())
    write_log(tmp_path / "two", events())
    findings = audit(tmp_path)
    assert findings.violations == []
    assert (findings.replicas, findings.stretches, findings.decisions) == (2, 2, 14)
    assert findings.compared == 5
    assert (findings.replayed, findings.admissions) == (14, 6)


def test_a_replica_that_decided_otherwise_is_found(tmp_path: Path) -> None:
    write_log(tmp_path / "one", events())
    write_log(tmp_path / "two", events(), spoils=3)
    texts = " | ".join(audit(tmp_path).violations)
    assert "one and two differ at 3.0" in texts
    assert "two: replayed otherwise at 3.0" in texts


def test_a_record_that_one_replica_lacks_is_found(tmp_path: Path) -> None:
    write_log(tmp_path / "one", events())
    write_log(tmp_path / "two", [*events()[:3], *events()[4:]])
    assert "one has 5 decisions where two has 4" in audit(tmp_path).violations


def test_a_turn_without_an_end_is_found(tmp_path: Path) -> None:
    write_log(tmp_path / "one", [*events(2), (8.0, arrived("open")), (9.0, TimerFired())])
    assert audit(tmp_path).violations == ["one: turn open has no end"]


def test_an_end_of_what_never_arrived_is_found(tmp_path: Path) -> None:
    write_log(tmp_path / "one", events(2), skips=1)
    texts = audit(tmp_path).violations
    assert "one: turn t0 ended without being under way" in texts


def test_a_replica_alone_decides_for_itself_and_then_goes_on_with_the_others(tmp_path: Path) -> None:
    """Alone it is compared with nobody; what follows from another state is replayed by nobody."""
    write_log(tmp_path / "one", [*events(), (6.0, StandingAlone(replicas=2)), (6.5, TimerFired())])
    others = [(each[0] + 10, each[1]) for each in events()]
    write_log(tmp_path / "two", [*events(), (9.0, StateAdopted(0)), *others])
    findings = audit(tmp_path)
    assert (findings.stretches, findings.alone) == (4, 1)
    assert findings.replayed == 9 + 7
    [separation] = findings.separations
    assert (separation.replica, separation.replicas) == ("one", 2)
    assert separation.allowed[BACKENDS[0]] <= separation.whole[BACKENDS[0]]
    assert findings.violations == []


def test_what_replicas_that_part_may_promise_is_added_up() -> None:
    together, share = Said("together", {"a": 100.0, "b": 50.0}), Said("alone", {"a": 60.0, "b": 10.0})
    seen = BudgetsSeen([together, together])
    seen.note([together, together], 2)
    assert (seen.looks, seen.all_alone_ratio, seen.some_alone_ratio) == (0, None, None)
    seen.note([share, share], 2)
    seen.note([share, Said("alone", {"a": 40.0, "b": -10.0})], 2)
    assert (seen.looks, seen.all_alone_ratio) == (2, 1.2)
    seen.note([share, together], 2)
    assert seen.some_alone_ratio == 1.6


def test_a_page_of_metrics_is_read() -> None:
    page = (
        'mars_store_state{state="alone"} 1.0\nmars_store_state{state="together"} 0.0\n'
        'mars_kv_tokens{backend="a",what="budget"} 12.0\nmars_kv_tokens{backend="a",what="pool"} 40.0\n'
        'mars_kv_tokens{backend="b",what="budget"} NaN\n'
    )
    assert read_page(page) == Said("alone", {"a": 12.0})
