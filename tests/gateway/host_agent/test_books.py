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


def test_a_forgotten_name_is_free_again_in_the_end(tmp_path: Path) -> None:
    for name, age_s in {"ex-old": bounds.TOMBSTONE_S + 60, "ex-young": 60.0}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    books = Books(ExecDirectories(tmp_path))
    books.expire()
    assert (fault(books, "ex-old"), fault(books, "ex-young")) == (Fault.UNKNOWN_EXEC, Fault.GONE)
    assert books.try_claim("ex-old") is not None


def test_forgotten_names_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_TOMBSTONES", 1)
    books = Books(ExecDirectories(tmp_path))
    for name in ("ex-1", "ex-2"):
        ended(books, name)
        books.forget(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ex-2"]


def test_what_is_on_the_disk_and_not_known_is_not_said_to_be_unknown(tmp_path: Path) -> None:
    books = Books(ExecDirectories(tmp_path))
    books.try_claim("ex-1")
    assert (fault(books, "ex-1"), fault(books, "ex-2")) == (Fault.INTERNAL, Fault.UNKNOWN_EXEC)
