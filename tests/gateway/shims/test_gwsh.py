"""What ``gwsh`` asks the gateway for, without one."""

import hashlib
import os
import stat
from pathlib import Path

from gateway.shims.gwsh import _about, _is_file


def test_gateway_learns_names_and_a_digest() -> None:
    about = _about(b"cd /secret && git status")
    assert about == {
        "command_sha256": hashlib.sha256(b"cd /secret && git status").hexdigest(),
        "program": "git status",
    }
    assert "program" not in _about(b"$(cat secret)")
    assert "program" not in _about(b" && ".join([b"an-uncommonly-long-name-of-a-program"] * 3))
    assert _about(None) == {}


def test_bytes_that_are_no_text_have_a_digest() -> None:
    assert _about(b"echo \xff")["command_sha256"] == hashlib.sha256(b"echo \xff").hexdigest()


def test_what_is_a_file(tmp_path: Path) -> None:
    """A script, /dev/null or nothing: not a shell that is told what to run bit by bit."""
    (tmp_path / "script").touch()
    reading, writing = os.pipe()
    os.close(writing)
    with (tmp_path / "script").open() as script, Path(os.devnull).open() as nothing:
        assert _is_file(script.fileno())
        assert _is_file(nothing.fileno())
        assert not _is_file(reading)
        assert stat.S_ISFIFO(os.fstat(reading).st_mode)
    os.close(reading)
    assert _is_file(reading)
