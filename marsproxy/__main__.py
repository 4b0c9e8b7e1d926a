"""The ``marsproxy`` command: reads what the user asked for and hands it to the module that does it.

Exit codes: 0 done, 1 it failed, 2 the configuration or the command line is wrong, 130 interrupted.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from rich.console import Console

from marsproxy.build import build_version
from marsproxy.config import Config
from marsproxy.config_sources import ConfigArgument, FileArgument, config_sources
from marsproxy.core.settings import ConfigError

PROXY_URL = "http://127.0.0.1:8080"
"""Where a proxy listens that was not told otherwise."""
EXIT_CONFIGURATION = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def build_app() -> App:
    app = App(
        name="marsproxy",
        help="Serve tool-using agents from your own GPUs, without changing them.",
        version=build_version,
        default_parameter=Parameter(negative=()),
        result_action="return_value",
    )
    app.command(serve, config=config_sources())
    app.command(replay)
    app.command(why)
    app.command(top)
    app.command(demo)
    app.command(tenant_key)
    return app


def serve(
    *,
    tree: ConfigArgument = Config(),  # noqa: B008 (frozen)
    file: FileArgument = None,
    print_config: bool = False,
) -> int:
    """Run the proxy in front of one or more OpenAI-compatible servers.

    Every setting is also a key of the TOML file and a MARS_* variable; flags win over the environment,
    the environment over the file.

    Args:
        file: TOML file with settings.
        print_config: Print the settings that would be used, as a TOML file, and exit.
    """
    if print_config:
        from marsproxy.config_toml import to_toml

        sys.stdout.write(to_toml(tree))
        return 0
    if not tree.backends:
        raise ConfigError(
            "backends: none given; allowed: --backend http://HOST[:PORT] (also several), "
            "or --backend embedded"
        )
    if tree.workers > 1:
        from marsproxy.workers.supervisor import supervise

        return supervise(tree)
    from marsproxy.server import serve as serve_until_stopped

    serve_until_stopped(tree)
    return 0


def replay(
    log: Path,
    /,
    *,
    policy: str | None = None,
    changes: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    show: Annotated[int, Parameter(validator=Number(gte=0))] = 10,
) -> int:
    """Feed an event log through the policy again, and report every command that differs.

    With --policy or --set the question is another: how many turns would have been held or refused, and
    for how long, had the same traffic met that policy.

    Args:
        log: File or directory written by serve --event-log.
        policy: Ask what another policy would have decided.
        changes: Ask what the policy would have decided with another setting, e.g. admission.kv_target=0.8.
        show: Differences to print in full; the others are counted.
    """
    from marsproxy.replay_command import run_replay

    return run_replay(log, policy=policy, changes=changes, show=show)


def why(session: str, /, *, url: str = PROXY_URL, json: bool = False) -> int:
    """Say why a session waited, went or lost its place, with the numbers that led to it.

    An admin token, where one is needed, is read from MARS_ADMIN_TOKEN.

    Args:
        session: Our id of it, from X-Mars-Session of an answer.
        url: Of the proxy.
        json: Print it as JSON.
    """
    from marsproxy.live.why_command import run_why

    return run_why(session, url=url, as_json=json)


def top(*, url: str = PROXY_URL, once: bool = False) -> int:
    """Show backends, tool hosts, sessions and decisions live; Ctrl-C ends it.

    An admin token, where one is needed, is read from MARS_ADMIN_TOKEN.

    Args:
        url: Of the proxy.
        once: Print one view and end.
    """
    from marsproxy.live.top import run_top

    return run_top(url=url, once=once)


def demo(
    *,
    sessions: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 30,
    seed: int = 1,
    repeats: Annotated[int, Parameter(validator=Number(gte=1, lte=100))] = 1,
    out: Path | None = None,
) -> int:
    """Show on this machine, without a GPU, what the proxy changes.

    Args:
        sessions: Agent sessions to run against each of the two targets.
        seed: Of the workload; the same seed gives the same sessions.
        repeats: Runs of each target, alternating; the table shows their medians.
        out: Directory for records and report. Default: a new one below out/demo/.
    """
    from marsproxy.demo import run_demo

    return run_demo(sessions=sessions, seed=seed, repeats=repeats, out=out or _new_directory())


def tenant_key(name: str, /) -> int:
    """Make a random API key for a tenant.

    The key is printed once and kept nowhere; what goes into the tenants file is a salted hash of it.

    Args:
        name: Of the tenant, as in the tenants file.
    """
    from marsproxy.tenants.keys import new_key

    key, record = new_key()
    Console(soft_wrap=True, highlight=False, markup=False).print(
        f"the key, which is shown this once:\n\n    {key}\n\n"
        f'for the tenants file, in keys of [tenants.{name}]:\n\n    "{record}",'
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        code = build_app()(
            sys.argv[1:] if arguments is None else list(arguments),
            exit_on_error=False,
            print_error=False,
        )
    except (ConfigError, CycloptsError) as error:
        _explain(str(error))
        return EXIT_CONFIGURATION
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _new_directory() -> Path:
    return Path("out/demo") / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")


def _explain(message: str) -> None:
    """One plain paragraph on stderr: readable for people, and for whoever greps a service's log."""
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"marsproxy: {message}")


if __name__ == "__main__":
    sys.exit(main())
