from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import run
from gateway.config import Config, ConfigError, check_environment
from gateway.tenants import Tenants, is_loopback, read_tokens


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert run(["serve", "--print-config", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_file_then_environment_then_flags(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("slots = 1\nqueue_limit = 1\ntimeout_s = 1\n")
    monkeypatch.setenv("MARS_GATEWAY_QUEUE_LIMIT", "2")
    monkeypatch.setenv("MARS_GATEWAY_TIMEOUT_S", "2")
    lines = printed(capsys, "--config", str(file), "--timeout-s", "3")
    assert {"slots = 1.0", "queue_limit = 2", "timeout_s = 3.0"} <= set(lines)


def test_printed_settings_are_a_file_that_gives_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = printed(capsys, "--slots", "3", "--allow-absolute-cwd", "--spool-dir", "/x y")
    file = tmp_path / "gateway.toml"
    file.write_text("\n".join(lines))
    assert printed(capsys, "--config", str(file)) == lines


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sandbox": "jail"}, "sandbox: must be one of none, bwrap, not 'jail'"),
        ({"session_uids": "5"}, "session_uids: must be a range such as '200000-265535', within 1000 to"),
        ({"session_uids": "3000-2000"}, "session_uids: must be a range"),
        ({"session_uids": "0-2000"}, "session_uids: must be a range"),
        ({"session_uids": "2000-3000", "hosts": Path("x")}, "set them for each host in that file"),
    ],
)
def test_mistakes_in_isolation_are_named(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Config(**settings)


def test_isolation_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "--session-uids", "200000-265535", "--sandbox", "bwrap")
    assert {'session_uids = "200000-265535"', 'sandbox = "bwrap"'} <= set(lines)


def test_unknown_keys_of_a_file_fail(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("slotz = 1\n")
    with pytest.raises(SystemExit):
        run(["serve", "--print-config", "--config", str(file)])
    assert "slotz" in "".join(capsys.readouterr())


def test_unknown_variables_fail() -> None:
    check_environment({"MARS_GATEWAY_SLOTS": "1", "MARS_GATEWAY_TOKENS": "x", "OTHER": "y"})
    with pytest.raises(ConfigError, match="MARS_GATEWAY_SLOTZ"):
        check_environment({"MARS_GATEWAY_SLOTZ": "1"})


def test_tokens_from_variable_and_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# ours\nbob:bob-0123456789abcdef:x\n\n")
    tokens = read_tokens("alice:alice-0123456789abcdef", file)
    assert tokens == {"alice": "alice-0123456789abcdef", "bob": "bob-0123456789abcdef:x"}
    assert Tenants(tokens).authenticate("bearer bob-0123456789abcdef:x", None) == "bob"


@pytest.mark.parametrize(
    "value",
    [
        "alice",
        ":0123456789abcdef",
        "alice:short",
        "a:0123456789abcdef,a:0123456789abcdeg",
        "a:0123456789abcdef,b:0123456789abcdef",
    ],
)
def test_bad_tokens_fail(value: str) -> None:
    with pytest.raises(ValueError, match=r"token|twice"):
        read_tokens(value, None)


def test_loopback() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "127.8.8.8", "::1", "localhost")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")] == [False] * 5


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["--slots", "0"], {}, "slots must be at least 0.05"),
        (["--queue-limit", "many"], {}, "queue-limit"),
        (["--port=70000"], {}, "port must be 0 to 65535"),
        (["--store", "mysql://x"], {}, "store must be memory or a redis://"),
        (["--on-stop", "keep"], {}, "on_stop keep needs a spool_dir"),
        (["--on-stop", "maybe"], {}, "on-stop"),
        (["--hosts", "/no/such/file"], {}, "hosts: /no/such/file cannot be read"),
        (["--proxy", "localhost:1"], {}, "proxy must be an http:// or https:// URL"),
        (["--no-such-flag", "1"], {}, "--no-such-flag"),
        (["--config", "/no/such/file"], {}, "/no/such/file"),
        ([], {"MARS_GATEWAY_SLOT": "1"}, "MARS_GATEWAY_SLOT: no such setting; known are "),
        ([], {"MARS_GATEWAY_TOKENS": "alice:short"}, "tenant:token"),
        (["--token-file", "/no/such/file"], {}, "token_file: /no/such/file"),
        (["--spool-dir", "/dev/null/x"], {}, "spool_dir: /dev/null/x cannot be used"),
    ],
)
def test_wrong_settings_are_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    env: dict[str, str],
    said: str,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    try:
        code = run(["serve", *arguments])
    except SystemExit as exit_:
        code = exit_.code
    assert code not in (0, None)
    assert said in " ".join("".join(capsys.readouterr()).split())
