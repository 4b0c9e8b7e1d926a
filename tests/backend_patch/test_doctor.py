"""What the doctor says, and how it exits. On the real releases: tests/vllm."""

from pathlib import Path

import msgspec
import pytest

from backend_patch.doctor import (
    ENDPOINT_GROUP,
    EXIT_FITS,
    EXIT_MISFIT,
    EXIT_NO_VLLM,
    PLUGIN_GROUPS,
    Report,
    other_traps,
    plugin_findings,
    run,
)
from tests.backend_patch.fake_package import write_package


def test_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The package's folder will do as well as the one around it."""
    package = write_package(tmp_path)
    assert run(["--vllm", str(tmp_path)]) == EXIT_FITS
    assert run(["--vllm", str(package)]) == EXIT_FITS
    out = capsys.readouterr().out
    assert "vLLM 0.32.0 (supported)" in out
    assert "The patch fits." in out
    assert "REQUIRED" not in out


def test_missing_hook_is_loud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_package(tmp_path, without="Scheduler._free_blocks")
    assert run(["--vllm", str(tmp_path)]) == EXIT_MISFIT
    out = capsys.readouterr().out
    assert "! REQUIRED hook Scheduler._free_blocks: not in v1/core/sched/scheduler.py" in out
    assert "THE PATCH DOES NOT FIT: Scheduler._free_blocks" in out


def test_missing_optional_hook_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_package(tmp_path, without="KVCacheBlock.pool")
    assert run(["--vllm", str(tmp_path)]) == EXIT_FITS
    assert "! optional hook KVCacheBlock.pool" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "code", "says"),
    [
        ("0.27.0", EXIT_MISFIT, "this release of vLLM is too old"),
        ("0.29.0", EXIT_FITS, "0.29.0 is best effort"),
        ("0.34.0", EXIT_FITS, "0.34.0 is untried"),
        (None, EXIT_FITS, "unknown is untried"),
    ],
)
def test_releases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str | None, code: int, says: str
) -> None:
    write_package(tmp_path, version)
    assert run(["--vllm", str(tmp_path)]) == code
    assert says in capsys.readouterr().out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_package(tmp_path, without="BlockPool.touch")
    assert run(["--vllm", str(tmp_path), "--json"]) == EXIT_MISFIT
    report = msgspec.json.decode(capsys.readouterr().out, type=Report)
    assert [hook.name for hook in report.hooks if not hook.fits] == ["BlockPool.touch"]
    assert not report.fits


def test_no_vllm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--vllm", str(tmp_path)]) == EXIT_NO_VLLM
    assert "no vLLM in" in capsys.readouterr().err


def installed(**plugins: str) -> dict[str, set[str]]:
    """Plugins by name, with the group each is in."""
    return {group: {name for name, of in plugins.items() if of == group} for group in PLUGIN_GROUPS}


OURS = {"mars": ENDPOINT_GROUP, "mars_emulator": "vllm.platform_plugins"}


@pytest.mark.parametrize(
    ("plugins", "allowlist", "says"),
    [
        ({}, "mars", ["no entry point mars"]),
        (OURS, None, ["not set: vLLM loads no endpoint plugin"]),
        (OURS, "", ["does not list mars"]),
        (OURS, "lora, mars", ["does not list mars"]),
        (OURS, "mars", []),
        (OURS, "mars,mars_emulator", []),
        (OURS | {"lora": "vllm.general_plugins"}, "mars", ["leaves out lora"]),
        (OURS | {"lora": "vllm.general_plugins"}, "mars,lora", []),
    ],
)
def test_plugins(plugins: dict[str, str], allowlist: str | None, says: list[str]) -> None:
    """vLLM splits the list at commas and does not strip; it filters the plugins of every kind."""
    found = [finding.found for finding in plugin_findings(installed(**plugins), allowlist)]
    assert len(found) == len(says)
    assert all(part in text for part, text in zip(says, found, strict=True))


@pytest.mark.parametrize(
    ("environment", "about"),
    [
        ({}, []),
        ({"VLLM_USE_RUST_FRONTEND": "0"}, []),
        ({"VLLM_USE_RUST_FRONTEND": "1"}, ["VLLM_USE_RUST_FRONTEND"]),
        ({"VLLM_TARGET_DEVICE": "CPU"}, ["VLLM_TARGET_DEVICE"]),
        ({"VLLM_TARGET_DEVICE": "cuda"}, []),
    ],
)
def test_other_traps(environment: dict[str, str], about: list[str]) -> None:
    assert [finding.about for finding in other_traps(environment)] == about
