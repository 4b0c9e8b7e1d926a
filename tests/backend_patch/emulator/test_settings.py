"""Settings on their way through vLLM's additional_config."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from backend_patch.emulator.failures import Failures
from backend_patch.emulator.settings import EmulatorSettings
from backend_patch.step_time import HardwareProfile


def test_settings_survive_the_way() -> None:
    """As JSON, beside what is for others."""
    settings = EmulatorSettings(
        hardware="a100", kv_tokens=1000, speed=2.0, failures=Failures(crash_after_steps=3)
    )
    config = json.loads(json.dumps({"mars": {"aging_s": 1}} | settings.as_additional_config()))
    assert EmulatorSettings.from_additional_config(config) == settings


def test_nothing_said_means_defaults() -> None:
    assert EmulatorSettings.from_additional_config({}) == EmulatorSettings()


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"kv_token": 5}, "kv_token"),
        ({"speed": 0}, "speed"),
        ({"speed": "fast"}, "speed"),
        ({"kv_tokens": 15}, "kv_tokens"),
        ({"kv_tokens": 99.5}, "kv_tokens"),
        ({"hardware": 1}, "hardware"),
        ({"host_bytes_per_s": 0}, "host_bytes_per_s"),
        ({"seed": True}, "seed"),
        ({"failures": {"crash": 1}}, "crash"),
        ({"failures": 1}, "failures"),
    ],
)
def test_wrong_settings_are_named(table: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        EmulatorSettings.from_additional_config({"mars_emulator": table})


def test_pool_is_whole_blocks() -> None:
    assert EmulatorSettings(kv_tokens=1000).pool_tokens() == 992
    assert EmulatorSettings(kv_tokens=None).pool_tokens() % 16 == 0


def test_model_is_known_by_either_name() -> None:
    short, full = EmulatorSettings(model="qwen3-30b-a3b"), EmulatorSettings()
    assert short.step_time().model == full.step_time().model
    served = short.step_time().model.served_name
    assert EmulatorSettings(model=served).step_time().model.served_name == served


def test_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Unless the pool's size is given."""
    small = replace(HardwareProfile.load("h100"), name="small", memory_bytes=24e9)
    file = tmp_path / "small.toml"
    rows = (f"{key} = {json.dumps(value)}" for key, value in asdict(small).items() if key != "name")
    file.write_text("\n".join(["[small]", *rows]))
    with pytest.raises(ValueError, match="does not fit"):
        EmulatorSettings(hardware=str(file)).pool_tokens()
    assert EmulatorSettings(hardware=str(file), kv_tokens=160).pool_tokens() == 160
