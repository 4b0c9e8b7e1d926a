"""The report of the last while: what the whole replay counts, or less where the window is short."""

import json
import shutil
from pathlib import Path

import pytest

from marsproxy.core.settings import ConfigError
from marsproxy.live import what_if_report
from marsproxy.live.what_if_report import report
from marsproxy.log_reader import EventLogError
from tests.marsproxy.recorded import Traffic

ALL_S = 1e12


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("log")
    Traffic(directory).record()
    return directory


def test_the_same_policy_decides_the_same(log: Path) -> None:
    same = report(log, ALL_S, None, [])
    recorded, asked = same["recorded"], same["asked"]
    assert recorded["held"] == asked["held"] > 0
    assert recorded["forwarded"] == asked["forwarded"] > 0
    assert report(log, ALL_S, None, ["admission.kv_target=2.0"])["asked"]["held"] < recorded["held"]
    assert report(log, ALL_S, "fcfs", [])["asked"]["held"] == 0


def test_only_the_window_counts(log: Path) -> None:
    """What came before it still made the state in which it begins."""
    whole, end = report(log, ALL_S, None, []), report(log, 0.0, None, [])
    assert end["recorded"]["forwarded"] < whole["recorded"]["forwarded"]
    assert end["asked"]["forwarded"] == end["recorded"]["forwarded"]


def test_what_cannot_be_asked_is_said(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError):
        report(log, ALL_S, "none-such", [])
    with pytest.raises(EventLogError):
        report(tmp_path, ALL_S, None, [])
    monkeypatch.setattr("os.nice", lambda _: 0)
    what_if_report.main([str(log), "600", "--set=none.such=1"])
    said = json.loads(capsys.readouterr().out)["error"]
    assert "no such policy, setting or value" in said
    assert "none.such" not in said
    shutil.copytree(log, tmp_path / "log")
    (tmp_path / "log" / "events-000001.jsonl").unlink()
    with pytest.raises(EventLogError):
        report(tmp_path / "log", ALL_S, None, [])
