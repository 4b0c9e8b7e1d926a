from pathlib import Path

import msgspec
import pytest

from loadgen.records import SessionRecord
from loadgen.run_files import RunFilesError, find_run_dirs, is_run_dir, read_run, read_summary

SESSION_LINE = msgspec.json.encode(SessionRecord("a", arrival_s=0.0, end_s=8.0)) + b"\n"


def test_a_run_cut_short_is_read_and_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sessions.jsonl").write_bytes(SESSION_LINE + b'{"session": "b", "arri')
    run = read_run(tmp_path)
    assert [session.session for session in run.sessions] == ["a"]
    assert run.summary["jct_s"]["mean"] == 8.0
    assert (run.turns, run.gauges) == ([], [])
    assert any("no turns.jsonl" in note for note in run.notes)
    assert any("1 unreadable line in sessions.jsonl" in note for note in run.notes)
    assert any("recomputed" in note for note in run.notes)
    assert read_summary(tmp_path) == run.summary


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"[]\n", b"null\n", b'{"session": 1}\n'])
def test_a_broken_line_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "sessions.jsonl").write_bytes(line + b"\n" + SESSION_LINE)
    assert len(read_run(tmp_path).sessions) == 1


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff"])
def test_an_unreadable_summary_is_recomputed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "summary.json").write_bytes(content)
    (tmp_path / "sessions.jsonl").write_bytes(SESSION_LINE)
    run = read_run(tmp_path)
    assert run.summary["completed"] == 1
    assert any("summary.json is unreadable" in note for note in run.notes)


def test_a_complete_run_has_nothing_to_note_and_keeps_its_own_summary(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(b'{"completed": 41, "future_key": 1}')
    (tmp_path / "sessions.jsonl").write_bytes(SESSION_LINE)
    (tmp_path / "turns.jsonl").write_bytes(b"")
    run = read_run(tmp_path)
    assert run.notes == []
    assert run.summary == {"completed": 41, "future_key": 1}


def test_a_directory_without_a_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RunFilesError, match=r"expected at least one of summary\.json"):
        read_run(tmp_path)


def test_runs_are_found_below_a_directory_in_order(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "turns.jsonl").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_run_dirs(tmp_path)] == ["a", "b/1", "b/2"]
    assert find_run_dirs(tmp_path / "a") == [tmp_path / "a"]
    assert is_run_dir(tmp_path / "a")
    assert find_run_dirs(tmp_path / "nowhere") == []
