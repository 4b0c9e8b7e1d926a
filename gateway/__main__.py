"""``mars-gateway``: the command line of the gateway and of its small client."""

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import App, Parameter
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Env, Toml

from gateway.client import GatewayClient, GatewayError
from gateway.config import ENV_PREFIX, TOKEN_ENV, URL_ENV, Config, as_toml, check_environment
from gateway.limits import ConfigError
from gateway.protocol import (
    EXIT_CANCELLED,
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    ExecRequest,
    ExecStatus,
    OutputRequest,
)
from gateway.spool_directory import SpoolDirectoryError

_EXIT_USAGE = 2
_EXIT_UNKNOWN = 125
"""As ``docker run`` answers when the fault is not the command's."""
_EXIT_BROKEN_PIPE = 141
"""As a shell answers for a command that wrote to a reader who had left."""


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def build_app() -> App:
    app = App(
        name="mars-gateway", help="Run commands for agents behind a queue for CPU slots.", version_flags=()
    )
    serving = App(name="serve", config=[Env(ENV_PREFIX, command=False), _from_file])
    serving.default(_serve)
    app.command(serving)
    app.command(_exec, name="exec")
    return app


def run(arguments: list[str]) -> int:
    try:
        check_environment(os.environ)
        code = build_app()(arguments, result_action="return_value")
    except (ConfigError, SpoolDirectoryError, GatewayError, FileNotFoundError) as error:
        sys.stderr.write(f"mars-gateway: {error}\n")
        return _EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_CANCELLED
    except BrokenPipeError:
        return _EXIT_BROKEN_PIPE
    return code if isinstance(code, int) else 0


def _serve(
    *,
    settings: Annotated[Config | None, Parameter(name="*")] = None,
    config: Path | None = None,
    print_config: bool = False,
) -> int:
    """Serve the tool-execution REST API until SIGTERM, which ends everything that was started.

    Parameters
    ----------
    config
        TOML file of settings; MARS_GATEWAY_* variables and flags override it.
    print_config
        Print the settings that would be used, as such a file, and stop.
    """
    from gateway.server import serve  # Half of the start-up time, which `exec` should not pay per command.

    settings = settings or Config()
    if print_config:
        sys.stdout.write(as_toml(settings))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # One line per report otherwise.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, os.environ))
    return 0


def _exec(
    *argv: Annotated[str, Parameter(allow_leading_hyphen=True)],
    session: str,
    gateway: Annotated[str, Parameter(env_var=URL_ENV)] = "http://127.0.0.1:8090",
    timeout_s: float | None = None,
    cpu: float = 1.0,
    cwd: str | None = None,
    merge: bool = False,
) -> int:
    """Run a command through a gateway as if it ran here: output as it comes, its exit code.

    The token, if the gateway wants one, is in MARS_GATEWAY_TOKEN. Ctrl-C cancels the command.

    Parameters
    ----------
    argv
        Program and arguments, after `--`. No shell: say `-- bash -c '...'` for one.
    session
        Session to run it in; created if it is not there.
    gateway
        URL of the gateway.
    timeout_s
        End it after so many seconds of running.
    cpu
        CPU slots that it takes.
    cwd
        Directory to start in, relative to the workspace of the session.
    merge
        Write stderr into stdout, in order.
    """
    if not argv:
        raise GatewayError("there is no command; say it after --")
    request = ExecRequest(
        argv=list(argv), timeout_s=timeout_s, cpu=cpu, cwd=cwd, output=OutputRequest(merge=merge)
    )
    status = asyncio.run(_follow(gateway, session, request))
    if status.exit_code is None:
        sys.stderr.write(f"mars-gateway: {status.state}: {status.reason}\n")
        return _EXIT_UNKNOWN
    if status.exit_code in (EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND) and status.reason is not None:
        sys.stderr.write(f"mars-gateway: {argv[0]}: {status.reason}; for a shell, say -- bash -c '...'\n")
    return status.exit_code


async def _follow(url: str, session: str, request: ExecRequest) -> ExecStatus:
    async with GatewayClient(url, os.environ.get(TOKEN_ENV)) as client:
        return await client.run(session, request, sys.stdout.buffer, sys.stderr.buffer)


def _from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """The configuration source that ``--config`` names, if it was given."""
    for argument in arguments:
        if argument.name == "--config" and argument.tokens:
            Toml(argument.tokens[0].value, must_exist=True, use_commands_as_keys=False)(
                app, commands, arguments
            )


if __name__ == "__main__":
    main()
