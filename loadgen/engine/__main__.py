"""``python -m loadgen.engine``."""

import sys

from loadgen.engine.cli import engine_app

if __name__ == "__main__":
    sys.exit(engine_app())
