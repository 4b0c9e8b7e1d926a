"""``loadgen engine``: the embedded engine from the command line."""

import sys
from typing import Annotated

from cyclopts import App, Parameter

from backend_patch.script import ScriptError
from loadgen.engine.config import ConfigError, EngineConfig
from loadgen.engine.server import serve_engine

engine_app = App(
    name="engine",
    help="Serve the embedded engine: a model of vLLM's scheduler behind vLLM's HTTP face, no GPU needed.",
)


@engine_app.default
def engine(*, config: Annotated[EngineConfig | None, Parameter(name="*")] = None) -> int:
    """Serve until SIGTERM or SIGINT; prints one line with the URL when ready."""
    try:
        serve_engine(config or EngineConfig())
    except (ConfigError, ScriptError) as exc:
        print(f"loadgen engine: {exc}", file=sys.stderr)  # noqa: T201
        return 2
    return 0
