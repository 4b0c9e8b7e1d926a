"""``marsproxy replay``: reads a log process by process, and prints what came of each.

Owns the choice between comparing and asking "what if", the words, and the exit code.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from marsproxy.build import build_version
from marsproxy.config import settings
from marsproxy.config_sources import did_you_mean
from marsproxy.core.policies import policy_kind
from marsproxy.core.settings import ConfigError, PolicySettings
from marsproxy.core.tenant_limits import LimitedPolicy
from marsproxy.log_reader import EventLogError, ProcessLog, process_logs
from marsproxy.replay import Comparison, Difference, replay
from marsproxy.what_if import Tally, WhatIf

EXIT_IDENTICAL = 0
EXIT_DIFFERENT = 1
EXIT_UNUSABLE = 2


def run_replay(log: Path, *, policy: str | None, changes: Sequence[str], show: int) -> int:
    """Returns the exit code; the report goes to stdout."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    try:
        codes = [_replay_process(process, policy, changes, show, console) for process in process_logs(log)]
    except EventLogError as error:
        Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(
            f"marsproxy replay: {error}"
        )
        return EXIT_UNUSABLE
    if EXIT_DIFFERENT in codes:
        return EXIT_DIFFERENT
    # A directory in use has lost the beginning of its oldest process sooner or later: no reason to fail.
    return EXIT_IDENTICAL if EXIT_IDENTICAL in codes else EXIT_UNUSABLE


def _replay_process(
    process: ProcessLog, policy: str | None, changes: Sequence[str], show: int, console: Console
) -> int:
    header = process.header
    written_by = "" if header.version == build_version() else f", written by version {header.version}"
    console.print(f"process {header.process}: policy {header.policy}, {len(process.files)} files{written_by}")
    if not process.is_whole:
        missing = "its beginning was" if process.pieces[0] > 1 else "pieces in the middle of it were"
        pieces = ", ".join(map(str, process.pieces))
        console.print(
            f"  cannot be replayed: {missing} rotated away or deleted; what is left: pieces {pieces}"
        )
        return EXIT_UNUSABLE
    recorded = LimitedPolicy(policy_kind(header.policy).make(header.settings, header.backends))
    if policy is None and not changes:
        return _print_comparison(replay(recorded, process.entries(), keep=show), console)
    name = policy or header.policy
    asked = policy_kind(name).make(changed(header.settings, changes), header.backends)
    what_if = WhatIf(LimitedPolicy(asked))
    what_if.run(process.entries())
    return _print_what_if(what_if, header.policy, " ".join((name, *changes)), console)


def changed(recorded: PolicySettings, changes: Sequence[str]) -> PolicySettings:
    """The settings with some replaced, each given as ``section.key=value``.

    Raises:
        ConfigError: no such setting, or not a value for it.
    """
    tree = msgspec.to_builtins(recorded)
    known = {setting.key: setting.path for setting in settings(PolicySettings)}
    for change in changes:
        key, has_value, value = change.partition("=")
        if key not in known or not has_value:
            raise ConfigError(
                f"--set {change}: not a setting of the policy with its value{did_you_mean(key, known)}; "
                f"allowed: KEY=VALUE, KEY one of {', '.join(known)}"
            )
        *above, last = known[key]
        section = tree
        for name in above:
            section = section[name]
        section[last] = value
    try:
        return msgspec.convert(tree, PolicySettings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"--set: {error}") from error


def _print_comparison(result: Comparison, console: Console) -> int:
    for difference in result.first:
        _print_difference(difference, console)
    if (more := result.different - len(result.first)) > 0:
        console.print(f"  and {more} more events that were answered differently")
    counts = f"{result.events} events, {result.commands} commands"
    verdict = f"{result.different} events answered differently" if result.different else "identical"
    console.print(f"  {counts}: {verdict}")
    if result.stopped is not None:
        console.print(f"  stopped: {result.stopped}")
    return EXIT_DIFFERENT if result.different or result.failed else EXIT_IDENTICAL


def _print_difference(difference: Difference, console: Console) -> None:
    decision = difference.decision
    console.print(f"  event {decision.number} at {decision.now:.3f}: {decision.event}")
    for title, commands in (("expected", decision.commands), ("got", difference.got)):
        console.print(f"    {title}: {', '.join(map(str, commands)) or 'nothing'}")


def _print_what_if(result: WhatIf, recorded: str, asked: str, console: Console) -> int:
    table = Table("", f"recorded ({recorded})", f"what if ({asked})")
    for title, left, right in zip(ROWS, _column(result.recorded), _column(result.asked), strict=True):
        table.add_row(title, left, right)
    console.print(table)
    if result.stopped is not None:
        console.print(f"  stopped: {result.stopped}")
    return EXIT_IDENTICAL


ROWS = ("turns forwarded", "held", "still held at the end", "refused", "held for, median", "held for, p95")


def _column(tally: Tally) -> tuple[str, ...]:
    counts = (tally.forwarded, tally.held, len(tally.holding), tally.refused)
    return (*map(str, counts), *(_seconds(tally.held_quantile_s(share)) for share in (0.5, 0.95)))


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
