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

from gateway.client import GatewayError
from gateway.command_line import add_client_commands
from gateway.config import ENV_PREFIX, Config, as_toml, check_environment
from gateway.limits import ConfigError
from gateway.protocol import EXIT_CANCELLED
from gateway.spool_directory import SpoolDirectoryError

_EXIT_USAGE = 2
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
    add_client_commands(app)
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
    for chatty in ("asyncssh", "httpx"):  # One line per report, and ten per connection with what runs on it.
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, os.environ))
    return 0


def _from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """The configuration source that ``--config`` names, if it was given."""
    for argument in arguments:
        if argument.name == "--config" and argument.tokens:
            Toml(argument.tokens[0].value, must_exist=True, use_commands_as_keys=False)(
                app, commands, arguments
            )


if __name__ == "__main__":
    main()
