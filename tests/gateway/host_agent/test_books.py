"""Bounds and expiry, with names that were taken a while ago."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gateway.host_agent import books as bounds
from gateway.host_agent.books import Books
from gateway.host_agent.command import Command, EndedBy, Outcome
from gateway.host_agent.exec_directory import ExecDirectories
from gateway.host_agent.operations import Refused
from gateway.host_agent.wire import Fault


def ended(books: Books, exec_id: str) -> None:
    directory = books.try_claim(exec_id)
    assert directory is not None
    command = Command.ended_before(exec_id, {}, directory, Outcome(EndedBy.ITSELF, returncode=0))
    books.add(command)
    books.ended(command)


def fault(books: Books, exec_id: str) -> str:
    with pytest.raises(Refused) as refused:
        books.get(exec_id)
    return refused.value.fault


def test_the_oldest_are_forgotten_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_ENDED", 2)
    books = Books(ExecDirectories(tmp_path))
    for n in range(4):
        ended(books, f"ex-{n}")
    assert [command.exec_id for command in books.page("", 10)] == ["ex-2", "ex-3"]
    assert [fault(books, f"ex-{n}") for n in range(2)] == [Fault.GONE, Fault.GONE]
    assert books.try_claim("ex-0") is None


def test_a_forgotten_name_is_free_again_when_its_time_has_come(tmp_path: Path) -> None:
    """Also to the next agent."""
    books = Books(ExecDirectories(tmp_path))
    for name, taken_s in {"ex-long": 3600.0, "ex-gone": 0.0, "ex-short": 60.0}.items():
        ended(books, name)
        books.forget(name, taken_s)
    for knows in (books, Books(ExecDirectories(tmp_path))):
        knows.expire()
        assert [fault(knows, f"ex-{name}") for name in ("gone", "short", "long")] == [
            Fault.UNKNOWN_EXEC,
            Fault.GONE,
            Fault.GONE,
        ]
    os.utime(tmp_path / "ex-short", (time.time() - 1,) * 2)
    books = Books(ExecDirectories(tmp_path))
    books.expire()
    assert (fault(books, "ex-short"), fault(books, "ex-long")) == (Fault.UNKNOWN_EXEC, Fault.GONE)
    assert books.try_claim("ex-short") is not None
    assert books.try_claim("ex-long") is None


def test_forgotten_names_are_bounded_and_the_first_to_be_free_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bounds, "MAX_TAKEN", 1)
    books = Books(ExecDirectories(tmp_path))
    for name, taken_s in {"ex-1": 3600.0, "ex-2": 60.0}.items():
        ended(books, name)
        books.forget(name, taken_s)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ex-1"]
    assert "ex-2: its id is free" in caplog.text


def test_what_is_on_the_disk_and_not_known_is_not_said_to_be_unknown(tmp_path: Path) -> None:
    books = Books(ExecDirectories(tmp_path))
    books.try_claim("ex-1")
    assert (fault(books, "ex-1"), fault(books, "ex-2")) == (Fault.INTERNAL, Fault.UNKNOWN_EXEC)
