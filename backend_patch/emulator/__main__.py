"""``python -m backend_patch.emulator``: the emulated vLLM from the command line."""

import sys

from cyclopts import App

from backend_patch.emulator.make_model import make_model
from backend_patch.emulator.serve import serve

emulator_app = App(name="python -m backend_patch.emulator", help="A real vLLM without an accelerator.")
emulator_app.command(make_model)
emulator_app.command(serve)

if __name__ == "__main__":
    sys.exit(emulator_app())
