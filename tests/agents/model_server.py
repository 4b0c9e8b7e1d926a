"""A real vLLM on the emulated accelerator, and the script of what its model says.

One for the whole run: it takes half a minute to start. Tests give it what is to be said while it runs.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend_patch.emulator.launch import LaunchOptions
from backend_patch.emulator.serve import EmulatedServer

MODEL = "tiny"
CONTEXT_TOKENS = 65_536
OPTIONS = LaunchOptions(
    port=0,
    speed=20.0,
    kv_tokens=1_000_000,
    max_model_len=CONTEXT_TOKENS,
    scheduling_policy="priority",
    served_model_name=MODEL,
    patch=True,
)
"""The pool holds all of the agents: nothing here is about capacity."""

Answer = dict[str, Any]
"""As ``backend_patch.script`` describes it."""


@dataclass
class ModelServer:
    url: str
    _script: Path
    _lines: list[str] = field(default_factory=list)

    def will_say(self, match: dict[str, Any], answers: Sequence[Answer]) -> None:
        """To requests that match, turn by turn, from now on. Of lines that match the latest counts."""
        self._lines.insert(0, json.dumps({"match": match, "turns": list(answers)}))
        new = self._script.with_suffix(".new")
        new.write_text("\n".join(self._lines), "utf-8")
        new.replace(self._script)


@contextlib.contextmanager
def model_server(folder: Path) -> Iterator[ModelServer]:
    from backend_patch.emulator.tiny_model import write_tiny_model  # what it needs comes with vLLM only

    write_tiny_model(folder / "model")
    script = folder / "script.jsonl"
    script.write_text("")
    with EmulatedServer(folder / "model", replace(OPTIONS, script=script), log=folder / "log") as server:
        yield ModelServer(server.url, script)
