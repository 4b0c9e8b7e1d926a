"""The command line: exit codes and what is said."""

import pytest

from marsproxy.__main__ import EXIT_CONFIGURATION, main


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, nothing else."""
    assert main(["--version"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_print_config(capsys: pytest.CaptureFixture[str]) -> None:
    """Goes to stdout, needs no backend, starts nothing."""
    assert main(["serve", "--print-config", "--port", "1234"]) == 0
    assert "port = 1234" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], "--backend"),
        (["serve", "--backend", "localhost:8000"], "backends"),
        (["serve", "--prot", "1"], "--port"),
        (["serv"], "serve"),
        (["demo", "--sessions", "0"], "--sessions"),
    ],
)
def test_wrong_configuration_is_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one line on stderr that helps, and no traceback."""
    assert main(arguments) == EXIT_CONFIGURATION
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("marsproxy: ")
    assert said in captured.err
    assert "Traceback" not in captured.err
