"""What is printed can be read back, and explains itself."""

from dataclasses import replace
from pathlib import Path

from marsproxy.config import AdmissionSettings, Backend, Config, EventLog, Gateway, Identity, Secret, settings
from marsproxy.config_sources import read_config
from marsproxy.config_toml import to_toml


def test_printed_configuration_reads_back_the_same(tmp_path: Path) -> None:
    """Printing is how one starts a file."""
    config = replace(
        Config(),
        backends=("http://a:1", "embedded"),
        admission=AdmissionSettings(kv_target=0.7, look_ahead=0),
        identity=Identity(extra_session_headers=("x-run",)),
        event_log=EventLog(dir=Path('dir with "quotes" and ü')),
        gateway=Gateway(url="http://g"),
    )
    path = tmp_path / "printed.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert read_config(["--config", str(path)]) == config


def test_secrets_are_never_printed() -> None:
    """Only that there is one."""
    text = to_toml(replace(Config(), backend=Backend(api_key=Secret("hunter2"))))
    assert "hunter2" not in text
    assert "# api_key is set, and not shown" in text
    assert "# token is unset" in text


def test_every_setting_is_explained() -> None:
    """Each is there with a comment; a number's comment ends with its bounds."""
    lines = to_toml(Config()).splitlines()
    for setting in settings():
        name = setting.path[-1]
        at = next(i for i, line in enumerate(lines) if line.startswith((f"{name} = ", f"# {name} is unset")))
        assert lines[at - 1].startswith("# "), setting.key
        if setting.allowed is not None:
            assert lines[at - 1].endswith("."), setting.key
