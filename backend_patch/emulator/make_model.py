"""``make-model``: the command around ``tiny_model``."""

import sys
from pathlib import Path


def make_model(directory: Path, *, context_tokens: int = 131_072, weights: bool = False) -> int:
    """Make a small model folder that vLLM serves, offline and in about a second.

    Parameters
    ----------
    directory
        Made if it is not there; files of an earlier model in it are replaced.
    context_tokens
        The longest prompt and answer together.
    weights
        Write random weights too, so that vLLM can run the model for real.
    """
    try:
        # Its tokenizers come with vLLM; the rest of the package does without.
        from backend_patch.emulator.tiny_model import ModelError, write_tiny_model
    except ModuleNotFoundError as exc:
        return _fail(f"{exc.name} is not installed; it comes with vLLM")
    try:
        write_tiny_model(directory, context_tokens=context_tokens, weights=weights)
    except (ModelError, OSError) as exc:
        return _fail(str(exc))
    print(f"model in {directory}")  # noqa: T201
    return 0


def _fail(reason: str) -> int:
    print(f"make-model: {reason}", file=sys.stderr)  # noqa: T201
    return 2
