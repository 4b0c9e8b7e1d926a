"""The agent's command line: what it takes, and that it says what it does not."""

import json

import pytest

from gateway.host_agent import wire
from gateway.host_agent.__main__ import main


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """There is no digest of a checkout."""
    assert main(["version"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": wire.VERSION, "agent": None}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: command"),
        (["start"], "invalid choice: 'start'"),
        (["serve"], "required: DIR"),
        (["connect"], "required: DIR"),
        (["serve", "dir", "--idle-exit-s", "soon"], "--idle-exit-s: invalid float value: 'soon'"),
        (["serve", "dir", "--idle-exit-s", "0"], "--idle-exit-s: must be above 0"),
    ],
)
def test_mistakes(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err
