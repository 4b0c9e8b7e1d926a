"""Options, and the command line and environment that they make."""

import json
from pathlib import Path
from typing import Any

import pytest

from backend_patch.emulator.launch import LaunchError, LaunchOptions, command, environment
from backend_patch.emulator.settings import EmulatorSettings


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 32768}))
    return tmp_path


def line(model_dir: Path, *extra: str, **options: Any) -> list[str]:
    return command(model_dir, LaunchOptions(**options), port=8123, state_dir=model_dir, extra=extra)


def value(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_settings_travel_in_the_additional_config(model_dir: Path) -> None:
    """With what the caller puts there, the scheduler's own settings for one."""
    theirs = json.dumps({"mars": {"aging_s": 9}})
    arguments = line(model_dir, "--additional-config", theirs, kv_tokens=65536, speed=2.0)
    assert arguments.count("--additional-config") == 1
    additional = json.loads(value(arguments, "--additional-config"))
    assert additional["mars"] == {"aging_s": 9}
    settings = EmulatorSettings.from_additional_config(additional)
    assert (settings.kv_tokens, settings.speed, settings.state_dir) == (65536, 2.0, str(model_dir))


def test_flags_of_the_caller_come_last(model_dir: Path) -> None:
    """vLLM takes the last of two."""
    assert line(model_dir, "--max-num-seqs", "7")[-2:] == ["--max-num-seqs", "7"]


def test_patch_is_the_scheduler_class(model_dir: Path) -> None:
    assert "--scheduler-cls" not in line(model_dir)
    assert value(line(model_dir, patch=True), "--scheduler-cls").startswith("backend_patch.")


def test_context_is_the_models_unless_the_pool_is_smaller(model_dir: Path) -> None:
    assert value(line(model_dir), "--max-model-len") == "32768"
    assert value(line(model_dir, kv_tokens=4100), "--max-model-len") == "4096"
    assert value(line(model_dir, max_model_len=1000), "--max-model-len") == "1000"


def test_host_tier_is_given_in_vllms_unit(model_dir: Path) -> None:
    assert "--kv-offloading-size" not in line(model_dir)
    gib = float(value(line(model_dir, host_kv_tokens=100_000), "--kv-offloading-size"))
    per_token = EmulatorSettings().step_time().model.kv_bytes_per_token
    assert gib * 2**30 == pytest.approx(100_000 * per_token)


@pytest.mark.parametrize(
    ("options", "extra", "named"),
    [
        ({"hardware": "h1000"}, (), "h1000"),
        ({"model": "none"}, (), "none"),
        ({"speed": 0}, (), "speed"),
        ({"kv_tokens": 3}, (), "kv_tokens"),
        ({"kv_tokens": 4096, "max_model_len": 5000}, (), "max_model_len"),
        ({}, ("--additional-config", "{"), "--additional-config"),
        ({}, ("--additional-config",), "--additional-config"),
    ],
)
def test_wrong_options_are_named(
    model_dir: Path, options: dict[str, Any], extra: tuple[str, ...], named: str
) -> None:
    with pytest.raises(LaunchError, match=named):
        line(model_dir, *extra, **options)


def test_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"config\.json"):
        line(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LaunchError, match="max_position_embeddings"):
        line(tmp_path)


def test_environment_switches_the_emulation_on(tmp_path: Path) -> None:
    """And the routes of the patch only with the patch."""
    env = environment({"HOME": "/home"}, LaunchOptions(script=tmp_path / "script.jsonl"))
    assert (env["HOME"], env["MARS_EMULATOR"], env["PYTHONHASHSEED"]) == ("/home", "1", "0")
    assert env["VLLM_PLUGINS"] == "mars_emulator"
    assert env["MARS_EMULATOR_SCRIPT"] == str(tmp_path / "script.jsonl")
    assert environment({}, LaunchOptions(patch=True))["VLLM_PLUGINS"] == "mars,mars_emulator"
    assert environment({"PYTHONHASHSEED": "7"}, LaunchOptions())["PYTHONHASHSEED"] == "7"


def test_variable_that_switches_it_off_is_refused() -> None:
    with pytest.raises(LaunchError, match="VLLM_TARGET_DEVICE"):
        environment({"VLLM_TARGET_DEVICE": "cpu"}, LaunchOptions())
