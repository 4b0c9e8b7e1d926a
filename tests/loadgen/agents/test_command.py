"""``loadgen agents`` as a user starts it: the script, and bad input."""

from pathlib import Path

import msgspec
import pytest

from backend_patch.script import Script
from loadgen.__main__ import EXIT_BAD_INPUT, run_command

FEW = ["--workload", "demo", "--sessions", "3", "--seed", "2"]


def test_the_script_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        assert run_command(["agents", "--framework", "openhands", *FEW, "--write-script", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not Script.read(files[0]).is_empty
    assert [msgspec.json.decode(line)["match"] for line in files[0].read_bytes().splitlines()] == [
        {"user": f"[demo-2-{i}]"} for i in range(3)
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--framework", "auto"], "--framework is 'auto'; allowed: mini-swe-agent, openhands"),
        (["--framework", "openhands"], "--target is needed"),
        (["--framework", "openhands", "--processes", "0"], "--processes is 0"),
        (["--framework", "openhands", "--shell", "/absent"], "--shell '/absent' is no program"),
        (["--framework", "openhands", "--timeout-s", "0"], "must be more than 0"),
        (
            ["--framework", "openhands", "--target", "http://127.0.0.1:9", "--python", "/absent/python"],
            "--python '/absent/python' is not there",
        ),
    ],
)
def test_bad_input_is_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["agents", *FEW, "--concurrency", "1", *arguments]) == EXIT_BAD_INPUT
    assert said in capsys.readouterr().err
