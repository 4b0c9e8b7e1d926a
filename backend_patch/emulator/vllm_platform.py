"""The platform plugin's entry point. Inert unless ``MARS_EMULATOR=1``; imports no vLLM before that."""

import os

ENABLING_VARIABLE = "MARS_EMULATOR"


def register() -> str | None:
    """Called by vLLM in each of its processes; the name of a class, or None to step aside."""
    if os.environ.get(ENABLING_VARIABLE) != "1":
        return None
    return "backend_patch.emulator.vllm_emulated_platform.EmulatedPlatform"
