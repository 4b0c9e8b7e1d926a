"""A log that the dispatcher wrote replays to the same commands; any other command is found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from marsproxy.__main__ import main
from marsproxy.core.commands import Command, ForwardTurn, HoldTurn
from marsproxy.core.events import BackendObserved, Event, TimerFired, TurnArrived
from marsproxy.core.log_format import COMMANDS, LinesLost
from marsproxy.core.policies import policy_kind
from marsproxy.log_reader import EventLogError, LogEntry, log_files, process_logs
from marsproxy.replay import Comparison, ReplayStopped, decisions, replay
from tests.marsproxy.recorded import BACKEND, SETTINGS, Traffic


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("log")
    Traffic(directory).record()
    return directory


def entries_of(log: Path) -> list[LogEntry]:
    [process] = process_logs(log)
    return list(process.entries())


def replayed(entries: list[LogEntry], keep: int = 10) -> Comparison:
    return replay(policy_kind("mars").make(SETTINGS, (BACKEND,)), entries, keep)


def test_a_log_of_the_dispatcher_replays_to_the_same_commands(log: Path) -> None:
    """With holds, timers and telemetry in it."""
    entries = entries_of(log)
    kinds = {type(line.entry) for line in entries}
    assert {TurnArrived, BackendObserved, ForwardTurn, HoldTurn} <= kinds
    result = replayed(entries)
    assert (result.different, result.stopped) == (0, None)
    assert (result.events, result.commands) == (
        sum(not isinstance(line.entry, COMMANDS) for line in entries),
        sum(isinstance(line.entry, COMMANDS) for line in entries),
    )


def test_a_log_from_before_leases_went_with_turns_still_replays(log: Path, tmp_path: Path) -> None:
    """Members that came later have a default that means what was meant before."""
    [file] = log_files(log)
    lines = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
    for line in lines:
        if line["name"] == "LogHeader":
            del line["fields"]["settings"]["admission"]["static_cap_sessions"]
        if line["name"] == "ForwardTurn":
            assert line["fields"].pop("lease") is None
    (tmp_path / file.name).write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    older = entries_of(tmp_path)
    assert older == entries_of(log)
    assert replayed(older).different == 0


def mutate(entries: list[LogEntry], change: Callable[[ForwardTurn], list[Command]]) -> list[LogEntry]:
    """The third ``ForwardTurn`` becomes what ``change`` makes of it."""
    place = [i for i, line in enumerate(entries) if isinstance(line.entry, ForwardTurn)][2]
    old = entries[place]
    assert isinstance(old.entry, ForwardTurn)
    return [*entries[:place], *(replace(old, entry=new) for new in change(old.entry)), *entries[place + 1 :]]


@pytest.mark.parametrize(
    "change",
    [
        lambda old: [replace(old, priority=old.priority + 1)],
        lambda old: [replace(old, may_break_leases=not old.may_break_leases)],
        lambda old: [],
        lambda old: [old, old],
    ],
    ids=["priority", "leases", "missing", "twice"],
)
def test_a_changed_command_is_found(log: Path, change: Callable[[ForwardTurn], list[Command]]) -> None:
    """Exactly there: expected is what was recorded, got is what the policy says."""
    entries = entries_of(log)
    result = replayed(mutate(entries, change))
    assert result.different == 1
    [found] = result.first
    recorded = [entry.entry for entry in entries]
    assert found.decision.commands != found.got
    assert set(found.got) <= set(recorded)


def test_only_the_first_differences_are_kept(log: Path) -> None:
    """The others are counted."""
    other = replace(SETTINGS, admission=replace(SETTINGS.admission, kv_target=0.3))
    policy = policy_kind("mars").make(other, (BACKEND,))
    result = replay(policy, entries_of(log), keep=2)
    assert (len(result.first), result.different > 2) == (2, True)


def test_a_policy_that_fails_is_a_finding(log: Path) -> None:
    """Here: a turn arrives twice. It says at which event."""
    entries = entries_of(log)
    arrival = next(line for line in entries if isinstance(line.entry, TurnArrived))
    result = replayed([arrival, arrival])
    assert result.failed
    assert result.stopped is not None
    assert "event 2" in result.stopped


def test_commands_cut_off_at_the_end_are_no_difference(log: Path) -> None:
    """The process was killed between an event and the last of its commands."""
    entries = entries_of(log)
    place = next(i for i, line in enumerate(entries) if isinstance(line.entry, ForwardTurn))
    result = replayed(entries[:place])
    assert (result.different, result.stopped) == (0, None)


def test_a_gap_ends_what_can_be_replayed(log: Path) -> None:
    """Everything after it would differ for no fault of the policy's."""
    entries = entries_of(log)
    place = next(i for i, line in enumerate(entries) if isinstance(line.entry, ForwardTurn))
    result = replayed([*entries[:place], LogEntry(0.0, 0.0, LinesLost(7)), *entries[place:]])
    assert (result.different, result.failed) == (0, False)
    assert result.stopped is not None
    assert "7 lines were lost" in result.stopped


def test_a_log_that_begins_with_a_command_is_none() -> None:
    with pytest.raises(EventLogError, match="command"):
        list(decisions([LogEntry(0.0, 0.0, HoldTurn.__new__(HoldTurn))]))


def test_decisions_are_events_with_their_commands() -> None:
    """Numbered, the last one marked."""
    event: Event = TimerFired()
    command = ForwardTurn("t", "gpu", 0, "new")
    lines = [LogEntry(1.0, 0.0, event), LogEntry(1.0, 0.0, command), LogEntry(2.0, 0.0, event)]
    assert [(d.number, d.now, d.commands, d.is_last) for d in decisions(lines)] == [
        (1, 1.0, (command,), False),
        (2, 2.0, (), True),
    ]
    with pytest.raises(ReplayStopped):
        list(decisions([*lines, LogEntry(3.0, 0.0, LinesLost(1))]))


# -- the command ----------------------------------------------------------------------------------


def lines_of(log: Path) -> list[str]:
    [file] = log_files(log)
    return file.read_text().splitlines(keepends=True)


def copied(log: Path, directory: Path, lines: list[str]) -> Path:
    file = directory / log_files(log)[0].name
    file.write_text("".join(lines))
    return file


def test_identical_is_exit_code_0(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(log)]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_difference_is_exit_code_1(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Event number, time, expected and got."""
    lines = lines_of(log)
    place = next(i for i, line in enumerate(lines) if '"ForwardTurn"' in line)
    lines[place] = lines[place].replace('"backend":"gpu"', '"backend":"tpu"')
    assert main(["replay", str(copied(log, tmp_path, lines))]) == 1
    said = capsys.readouterr().out
    assert "expected: ForwardTurn" in said
    assert "backend='tpu'" in said
    assert "1 events answered differently" in said


def test_a_torn_last_line_is_passed_over(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(log)
    lines[-1] = lines[-1][:-9]
    assert main(["replay", str(copied(log, tmp_path, lines))]) == 0
    assert "identical" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [lines[0].replace('"format":2', '"format":3'), *lines[1:]], "format 3"),
        (lambda lines: lines[1:], "no header"),
        (lambda lines: [*lines[:3], "not json\n", *lines[3:]], "events-000001.jsonl:4"),
        (lambda lines: [lines[0].replace('"policy":"mars"', '"policy":"venus"'), *lines[1:]], "venus"),
    ],
    ids=["version", "header", "line", "policy"],
)
def test_bad_input_is_exit_code_2(
    log: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[str]], list[str]],
    said: str,
) -> None:
    assert main(["replay", str(copied(log, tmp_path, change(lines_of(log))))]) == 2
    assert said in capsys.readouterr().err


def test_a_log_whose_beginning_is_gone_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rotation has dropped what the rest depends on; a whole process beside it is still compared."""
    Traffic(tmp_path, max_file_bytes=10_000, max_files=3).record()
    assert main(["replay", str(tmp_path)]) == 2
    assert "cannot be replayed: its beginning was rotated away" in capsys.readouterr().out
    Traffic(tmp_path).record(sessions=2)
    assert main(["replay", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "rotated away" in said
    assert "identical" in said


def test_processes_are_replayed_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with the settings that it had."""
    for kv_target in (0.5, 1.0):
        admission = replace(SETTINGS.admission, kv_target=kv_target)
        Traffic(tmp_path, replace(SETTINGS, admission=admission), max_file_bytes=20_000).record()
    assert main(["replay", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("identical") == 2
