"""The agent's command line. Owns flags; each command is imported only when it is asked for."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.command == "version":
        return _version()
    directory = asked.directory.expanduser().absolute()
    if asked.command == "connect":
        from gateway.host_agent.connect import connect

        return connect(directory)
    if asked.idle_exit_s is not None and not asked.idle_exit_s > 0:
        parser.error("--idle-exit-s: must be above 0")
    from gateway.host_agent.execs import open_execs
    from gateway.host_agent.serve import Terms, serve

    return serve(directory, Terms(asked.idle_exit_s, asked.until_eof), open_execs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agent", description="Runs commands on this host for a gateway.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="be the agent of DIR")
    serve.add_argument("directory", type=Path, metavar="DIR")
    serve.add_argument(
        "--idle-exit-s", type=float, metavar="N", help="end after so long without connection and command"
    )
    serve.add_argument(
        "--until-eof", action="store_true", help="end, and the commands too, when standard input ends"
    )
    connect = commands.add_parser("connect", help="join standard input and output to the agent of DIR")
    connect.add_argument("directory", type=Path, metavar="DIR")
    commands.add_parser("version", help="say which program this is")
    return parser


def _version() -> int:
    from gateway.host_agent import program, wire

    print(json.dumps({"version": wire.VERSION, "agent": program.program_digest()}))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
