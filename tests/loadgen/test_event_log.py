"""What the proxy writes is read; what is not a log is named."""

from pathlib import Path

import msgspec
import pytest

from loadgen.errors import LoadgenError
from loadgen.event_log import read_event_log
from marsproxy.core.events import SessionEnded, TimerFired
from marsproxy.core.log_format import FORMAT_VERSION, LogHeader
from marsproxy.core.settings import PolicySettings
from marsproxy.eventlog import EventLog, new_header


def written(directory: Path, count: int = 30, max_file_bytes: int = 2000) -> LogHeader:
    header = new_header("mars", PolicySettings(), ["gpu"])
    log = EventLog(directory, max_file_bytes, 99, header)
    for number in range(count):
        log.record(float(number), SessionEnded(f"{number:050}"))
    log.close()
    return header


def test_all_files_of_a_directory_in_order(tmp_path: Path) -> None:
    """Of each process; a last line without its end is left out."""
    headers = [written(tmp_path), written(tmp_path)]
    with (tmp_path / "events-000001.jsonl").open("a") as file:
        file.write('{"now":')
    lines = [line for line in read_event_log(tmp_path) if not isinstance(line.entry, LogHeader)]
    assert [(line.process, line.now) for line in lines] == [
        (header.process, float(number)) for header in headers for number in range(30)
    ]


def test_one_file(tmp_path: Path) -> None:
    written(tmp_path, count=1)
    assert len(list(read_event_log(tmp_path / "events-000001.jsonl"))) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "not a line"),
        ('{"now":1,"name":"Dance","fields":{}}', "Dance"),
        ('{"now":1,"name":"LogHeader","fields":{"format":99}}', f"format 99.*reads format {FORMAT_VERSION}"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, said: str) -> None:
    written(tmp_path, count=1)
    with (tmp_path / "events-000001.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(LoadgenError, match=rf"events-000001.jsonl:3: .*{said}"):
        list(read_event_log(tmp_path))


def test_a_log_without_header_is_refused(tmp_path: Path) -> None:
    line = {"now": 1.0, "wall": 1.0, "name": "TimerFired", "fields": TimerFired()}
    (tmp_path / "events-000001.jsonl").write_bytes(msgspec.json.encode(line) + b"\n")
    with pytest.raises(LoadgenError, match="no header"):
        list(read_event_log(tmp_path))


@pytest.mark.parametrize("name", [".", "absent"])
def test_no_log(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadgenError, match=r"no event log|cannot be read"):
        list(read_event_log(tmp_path / name))
