"""What is not understood is named; what belongs together is put together."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from marsproxy.core.events import BackendUnreachable, SessionEnded, TimerFired
from marsproxy.core.log_format import FORMAT_VERSION, LogHeader
from marsproxy.core.settings import AdmissionSettings, PolicySettings
from marsproxy.eventlog import EventLog
from marsproxy.log_reader import EventLogError, LogEntry, log_files, process_logs, read_log
from tests.marsproxy.test_eventlog import HEADER, entries_of, write


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    """A killed process leaves one."""
    write(tmp_path, [(1.0, TimerFired()), (2.0, TimerFired())])
    [file] = log_files(tmp_path)
    file.write_bytes(file.read_bytes()[:-5])
    assert list(read_log(file))[1:] == [LogEntry(1.0, 1e9, TimerFired())]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "not a line"),
        ('{"now": 1, "wall": 1, "name": "Dance", "fields": {}}', "Dance"),
        ('{"now": 1, "wall": 1, "name": "BackendUnreachable", "fields": {"backend": 7}}', "backend"),
        ('{"now": "x", "wall": 1, "name": "TimerFired", "fields": {}}', "now"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, said: str) -> None:
    """File, line number and what is wrong."""
    write(tmp_path, [(1.0, BackendUnreachable("http://b"))])
    [file] = log_files(tmp_path)
    with file.open("a") as appended:
        appended.write(line + "\n")
    with pytest.raises(EventLogError, match=said) as caught:
        list(read_log(tmp_path))
    assert f"{file.name}:3" in str(caught.value)


def test_processes_are_told_apart(tmp_path: Path) -> None:
    """Two that write to one directory at once, a file each in turn."""
    settings = PolicySettings(AdmissionSettings(kv_target=0.8))
    logs = [
        EventLog(tmp_path, 1600, 99, replace(HEADER, process=name, settings=settings), clock=lambda: 0.0)
        for name in "ab"
    ]
    for number in range(20):
        for name, log in zip("ab", logs, strict=True):
            log._write([log._line(float(number), SessionEnded(name * 50))])
    for log in logs:
        log.close()
    found = process_logs(tmp_path)
    assert [process.header.process for process in found] == ["a", "b"]
    assert all(process.is_whole and len(process.files) > 1 for process in found)
    assert found[0].header.settings == settings
    for process in found:
        told = [line.entry for line in process.entries()]
        assert told == [SessionEnded(process.header.process * 50)] * 20


def test_a_log_without_its_beginning_is_not_whole(tmp_path: Path) -> None:
    """Nor is one with a hole."""
    log = EventLog(tmp_path, 1600, 99, HEADER)
    for number in range(40):
        log.record(float(number), SessionEnded("s" * 50))
    log.close()
    files = log_files(tmp_path)
    assert len(files) > 3
    files[1].unlink()
    assert not process_logs(tmp_path)[0].is_whole
    files[0].unlink()
    assert process_logs(tmp_path)[0].pieces[0] == 3
    assert not process_logs(tmp_path)[0].is_whole


def test_a_file_that_was_never_begun_is_no_process(tmp_path: Path) -> None:
    """Killed before the end of its first line."""
    write(tmp_path, [(1.0, TimerFired())])
    (tmp_path / "events-000002.jsonl").write_bytes(b'{"now":')
    assert [process.header for process in process_logs(tmp_path)] == [HEADER]


def test_a_log_of_another_format_is_refused(tmp_path: Path) -> None:
    """Before anything in it is misunderstood, and whatever else its header says."""
    line = {"now": 0.0, "wall": 0.0, "name": "LogHeader", "fields": {"format": 99, "dialect": "new"}}
    (tmp_path / "events-000001.jsonl").write_bytes(msgspec.json.encode(line) + b"\n")
    with pytest.raises(EventLogError, match=f"format 99; this version reads format {FORMAT_VERSION}"):
        process_logs(tmp_path)


def test_a_log_without_header_is_refused(tmp_path: Path) -> None:
    """What it holds can be read, but not what made it."""
    file = tmp_path / "events-000001.jsonl"
    write(tmp_path, [(1.0, TimerFired())])
    file.write_bytes(file.read_bytes().split(b"\n", 1)[1])
    assert entries_of(tmp_path) == [(1.0, TimerFired())]
    with pytest.raises(EventLogError, match="no header"):
        process_logs(tmp_path)


@pytest.mark.parametrize("name", ["absent", "absent.jsonl"])
def test_a_log_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(EventLogError, match=name):
        process_logs(tmp_path / name)


def test_an_empty_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(EventLogError, match="no event log"):
        process_logs(tmp_path)


def test_the_header_keeps_every_setting(tmp_path: Path) -> None:
    """Whatever the policy can be told comes back as it was."""
    write(tmp_path, [(1.0, TimerFired())])
    [process] = process_logs(tmp_path)
    assert isinstance(process.header, LogHeader)
    assert process.header == HEADER
