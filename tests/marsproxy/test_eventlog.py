"""What is written reads back as the same objects; a bad disk costs lines, never the process."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marsproxy import eventlog
from marsproxy.core.commands import Command, Reason, RejectTurn
from marsproxy.core.events import Event, SessionEnded, TimerFired
from marsproxy.core.log_format import COMMANDS, EVENTS, FORMAT_VERSION, Entry, LinesLost, LogHeader
from marsproxy.core.settings import PolicySettings
from marsproxy.eventlog import EventLog, new_header
from marsproxy.log_reader import log_files, read_log

st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))

entries = st.one_of([st.from_type(kind) for kind in (*EVENTS, *COMMANDS)])
HEADER = new_header("mars", PolicySettings(), ["http://gpu:8000"])


def entries_of(path: Path) -> list[tuple[float, Entry]]:
    """Without the headers."""
    return [(line.now, line.entry) for line in read_log(path) if not isinstance(line.entry, LogHeader)]


def write(directory: Path, records: Iterable[tuple[float, Event | Command]], max_files: int = 9) -> EventLog:
    written = EventLog(directory, 1 << 20, max_files, HEADER, clock=lambda: 0.0, wall_clock=lambda: 1e9)
    for now, entry in records:
        written.record(now, entry)
    written.close()
    return written


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1e9), entries), max_size=20))
def test_every_event_and_command_survives(
    tmp_path: Path, records: list[tuple[float, Event | Command]]
) -> None:
    """Same objects, same times, same order."""
    directory = tmp_path / str(len(list(tmp_path.iterdir())))
    write(directory, records)
    assert (entries_of(directory) if directory.exists() else []) == records


def test_line_format(tmp_path: Path) -> None:
    """The format that other programs read."""
    write(tmp_path, [(1.5, RejectTurn("t1", Reason.QUEUE_FULL, 5.0))])
    [file] = log_files(tmp_path)
    header, line = map(json.loads, file.read_text().splitlines())
    assert (header["name"], header["fields"]["format"], header["fields"]["piece"]) == (
        "LogHeader",
        FORMAT_VERSION,
        1,
    )
    assert line == {
        "now": 1.5,
        "wall": 1e9,
        "name": "RejectTurn",
        "fields": {"turn_id": "t1", "reason": "queue_full", "retry_after_s": 5.0},
    }


def test_files_are_private(tmp_path: Path) -> None:
    """Session ids and timings are nobody else's."""
    write(tmp_path / "made" / "on demand", [(0.0, TimerFired())])
    [file] = log_files(tmp_path / "made" / "on demand")
    assert file.stat().st_mode & 0o077 == 0


def test_rotation_bounds_size_and_number(tmp_path: Path) -> None:
    """A file outgrows its bound by less than a line; the newest files stay, whole lines in each."""
    records = [(float(i), SessionEnded(f"s{i:04}")) for i in range(1000)]
    log = EventLog(tmp_path, max_file_bytes=3000, max_files=3, header=HEADER)
    for now, entry in records:
        log.record(now, entry)
    log.close()
    files = log_files(tmp_path)
    assert len(files) == 3
    assert all(file.stat().st_size < 3100 for file in files)
    kept = entries_of(tmp_path)
    assert kept == records[-len(kept) :]
    assert log.lines_written == 1000
    assert log.lines_dropped == 0


def test_every_file_begins_with_the_header_of_its_process(tmp_path: Path) -> None:
    """And says which piece of the log it is."""
    log = EventLog(tmp_path, max_file_bytes=2000, max_files=9, header=HEADER)
    for i in range(20):
        log.record(float(i), SessionEnded("s" * 50))
    log.close()
    heads = [next(read_log(file)).entry for file in log_files(tmp_path)]
    assert len(heads) > 1
    assert heads == [replace(HEADER, piece=piece) for piece in range(1, len(heads) + 1)]


def test_each_process_begins_a_file(tmp_path: Path) -> None:
    """Nothing is overwritten, and numbers go on."""
    write(tmp_path, [(1.0, TimerFired())])
    write(tmp_path, [(2.0, TimerFired())])
    assert [file.name for file in log_files(tmp_path)] == ["events-000001.jsonl", "events-000002.jsonl"]
    assert [now for now, _ in entries_of(tmp_path)] == [1.0, 2.0]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Somebody may point it at a directory that is not empty."""
    (tmp_path / "events-notes.txt").write_text("mine")
    for _ in range(3):
        write(tmp_path, [(0.0, TimerFired())], max_files=1)
    assert (tmp_path / "events-notes.txt").read_text() == "mine"
    assert len(log_files(tmp_path)) == 1


def test_unusable_directory_drops_and_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The proxy goes on; one line says why."""
    (tmp_path / "file").write_text("")
    log = write(tmp_path / "file", [(0.0, TimerFired())] * 5)
    assert (log.lines_written, log.lines_dropped) == (0, 5)
    assert len(caplog.records) == 1


def test_full_disk_drops_and_counts() -> None:
    """/dev/full refuses every write with ENOSPC; the file is closed, so a later one can work."""
    files = eventlog._RotatedFiles(Path("/nowhere"), 1000, 1, lambda _: b"")
    files._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115, PTH123
    with pytest.raises(OSError, match="No space left"):
        files.write([b"line"])
    assert files._file is None


def test_a_gap_is_said(tmp_path: Path) -> None:
    """Where lines are missing, so that a replay does not take what follows for the whole."""
    directory = tmp_path / "logs"
    directory.write_text("in the way")
    log = EventLog(directory, 1 << 20, 9, HEADER)
    log.record(1.0, TimerFired())
    while not log.lines_dropped:
        time.sleep(0.005)
    directory.unlink()
    log.record(2.0, TimerFired())
    log.close()
    assert [entry for _, entry in entries_of(directory)] == [LinesLost(1), TimerFired()]


def test_slow_disk_drops_beyond_the_bound(tmp_path: Path) -> None:
    """Memory is bounded when the writer does not come back: here it waits for a reader of a pipe."""
    os.mkfifo(tmp_path / "pipe")
    log = EventLog(tmp_path, max_file_bytes=1 << 30, max_files=9, header=HEADER)
    read_end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    log._files._file = open(tmp_path / "pipe", "wb", buffering=0)  # noqa: SIM115, PTH123
    entry = SessionEnded("s" * 10_000)
    for _ in range(2000):  # 20 MB: more than the pipe, the batch being written and the bound together
        log.record(0.0, entry)
    assert log.lines_dropped > 0
    assert log._waiting_bytes <= eventlog.MAX_WAITING_BYTES + 11_000
    # The writer may have taken on to tell of some before it got stuck.
    assert log._untold_waiting + log._untold_writing == log.lines_dropped
    os.close(read_end)  # the writer's pending write fails, and it stops
    log.close()
