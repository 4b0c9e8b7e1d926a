"""File < environment < flags, and nothing unknown passes."""

import os
from pathlib import Path
from shlex import split

import pytest

from marsproxy.config import Config, ConfigError, Secret, settings
from marsproxy.config_sources import read_config


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MARS_"):
            monkeypatch.delenv(name)


def config_file(directory: Path, text: str) -> str:
    path = directory / "mars.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(*flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(flags)
    return str(caught.value)


def test_nothing_given_is_the_defaults() -> None:
    """No source, no change."""
    assert read_config([]) == Config()


def test_short_flags() -> None:
    """The spelling that the documentation promises."""
    config = read_config(
        split(
            "--backend http://a:1 --backend http://b:2 --host 0.0.0.0 --port 0 --policy mars --store memory "
            "--gateway http://g:8090 --event-log logs"
        )
    )
    assert config.backends == ("http://a:1", "http://b:2")
    assert (config.listen.host, config.listen.port) == ("0.0.0.0", 0)
    assert (config.policy, config.store.url.reveal()) == ("mars", "memory")
    assert (config.gateway.url, config.event_log.dir) == ("http://g:8090", Path("logs"))


def test_embedded_backend() -> None:
    """A word in place of a URL."""
    assert read_config(["--backend", "embedded"]).backends == ("embedded",)


def test_long_flags_reach_every_section() -> None:
    """--section.key, dashes for underscores."""
    config = read_config(["--admission.kv-target", "0.8", "--hold.sse-comment-interval-s", "2",
                          "--backend.kv-tokens", "400000"])  # fmt: skip
    assert config.admission.kv_target == 0.8
    assert config.hold.sse_comment_interval_s == 2.0
    assert config.backend.kv_tokens == 400_000


def test_flags_win_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer overrides single settings of the one below, not whole sections."""
    path = config_file(tmp_path, "[listen]\nport = 1\nkeep_alive_s = 1\nbody_timeout_s = 1\n")
    monkeypatch.setenv("MARS_LISTEN_PORT", "2")
    monkeypatch.setenv("MARS_LISTEN_KEEP_ALIVE_S", "2")
    listen = read_config(["--config", path, "--port", "3"]).listen
    assert (listen.port, listen.keep_alive_s, listen.body_timeout_s) == (3, 2.0, 1.0)


def test_environment_reaches_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """MARS_SECTION_KEY, lists separated by blanks, the file by MARS_CONFIG."""
    monkeypatch.setenv("MARS_BACKENDS", "http://a http://b")
    monkeypatch.setenv("MARS_EVENT_LOG_MAX_FILE_MB", "9")
    monkeypatch.setenv("MARS_GATEWAY_URL", "http://g")
    monkeypatch.setenv("MARS_BACKEND_API_KEY", "hunter2")
    config = read_config([])
    assert config.backends == ("http://a", "http://b")
    assert config.event_log.max_file_mb == 9
    assert config.gateway.url == "http://g"
    assert config.backend.api_key == Secret("hunter2")


def test_config_file_named_in_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container sets one variable and mounts one file."""
    monkeypatch.setenv("MARS_CONFIG", config_file(tmp_path, 'backends = ["embedded"]\n'))
    assert read_config([]).backends == ("embedded",)


def test_gateway_names_are_left_to_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """One environment may configure both programs."""
    monkeypatch.setenv("MARS_GATEWAY_SLOTS", "4")
    assert read_config([]) == Config()


def test_unknown_environment_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error must not leave the default in place silently."""
    monkeypatch.setenv("MARS_LISTN_PORT", "1")
    assert "MARS_LISTN_PORT" in refusal()
    assert "did you mean MARS_LISTEN_PORT" in refusal()


def test_unknown_flag() -> None:
    """With the nearest known one."""
    message = refusal("--admission.kv-targt", "1")
    assert "--admission.kv-targt" in message
    assert "--admission.kv-target" in message.replace("--admission.kv-targt.", "")


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("prt = 1", "prt", "no such setting"),
        ("[listn]\nport = 1", "listn", "did you mean listen?"),
        ("[listen]\nprt = 1", "listen.prt", "did you mean port?"),
        ('[listen]\nport = "x"', "[listen][port]", "int"),
        ("[listen]\nport = 3.7", "[listen][port]", "a whole number"),
        ("[listen]\nport = 70000", "listen.port", "0 to 65535"),
        ("listen = 3", "listen", "a table [listen]"),
        ("[policy]\nname = 1", "policy", "a value"),
        ('policy = "fastest"', "policy: ", "mars"),
        ("[listen", "mars.toml", "not a TOML file"),
    ],
)
def test_refused_files(tmp_path: Path, text: str, key: str, hint: str) -> None:
    """Each names the key and what is allowed there."""
    message = refusal("--config", config_file(tmp_path, text))
    assert key in message
    assert hint in message


def test_missing_and_binary_files(tmp_path: Path) -> None:
    """A named file that cannot be used is an error, not a default."""
    assert "cannot be read" in refusal("--config", str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert "not a TOML file" in refusal("--config", str(tmp_path / "binary.toml"))


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--port", "x"], "int"),
        (["--port", "1", "--port", "2"], "multiple times"),
        (["--listen", "3"], "--listen.port"),
        (["--backend", ""], "http://HOST[:PORT]"),
        (["http://positional"], "http://positional"),
        (["--listen.keep-alive-s", "nan"], "0 to 3600"),
    ],
)
def test_refused_flags(flags: list[str], hint: str) -> None:
    """Wrong values, values for sections, and positional leftovers."""
    assert hint in refusal(*flags)


def test_secrets_are_not_taken_from_the_command_line(tmp_path: Path) -> None:
    """Other users read it in the process list; a file is fine."""
    message = refusal("--backend.api-key", "hunter2")
    assert "process list" in message
    assert "hunter2" not in message
    path = config_file(tmp_path, '[backend]\napi_key = "hunter2"\n[gateway]\ntoken = "t"\n')
    assert read_config(["--config", path]).gateway.token == Secret("t")


def test_every_setting_has_an_environment_name_of_its_own() -> None:
    """Sections and keys both contain underscores, so two paths could collapse into one name."""
    names = ["_".join(setting.path) for setting in settings()]
    assert len(set(names)) == len(names)
