"""The emulated accelerator: the real vLLM with everything but the arithmetic."""
