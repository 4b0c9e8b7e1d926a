"""The door to the real scheduler, from where there is no vLLM behind it."""

import sys

import pytest

from backend_patch.virtual_engine import EngineShape, VirtualEngineUnavailableError, open_virtual_engine


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delitem(sys.modules, "backend_patch.emulator.vllm_virtual", raising=False)
    with pytest.raises(VirtualEngineUnavailableError, match="pip install"):
        open_virtual_engine(EngineShape(kv_blocks=10), lambda _items: 1.0)
