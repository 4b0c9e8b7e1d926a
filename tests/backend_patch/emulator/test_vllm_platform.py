"""The platform plugin steps aside unless it is asked for."""

import importlib.util

import pytest

from backend_patch.emulator.vllm_platform import ENABLING_VARIABLE, register


def test_plugin_is_inert_unless_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed beside a real GPU's vLLM too."""
    monkeypatch.delenv(ENABLING_VARIABLE, raising=False)
    assert register() is None
    monkeypatch.setenv(ENABLING_VARIABLE, "0")
    assert register() is None


def test_plugin_names_a_module_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENABLING_VARIABLE, "1")
    name = register()
    assert name is not None
    module, _, _class = name.rpartition(".")
    assert importlib.util.find_spec(module) is not None
