"""Run as ``python -m marsproxy.live.what_if_report DIR SECONDS [--policy=NAME] [--set=KEY=VALUE ...]``.

Replays the newest process's event log and prints, as one line of JSON, what was decided in its last seconds
beside what would have been. Knows nothing of HTTP.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from marsproxy.core.policies import POLICIES, policy_kind
from marsproxy.core.settings import ConfigError
from marsproxy.core.tenant_limits import LimitedPolicy
from marsproxy.log_reader import EventLogError, LogEntry, ProcessLog, process_logs, read_log
from marsproxy.replay_command import changed
from marsproxy.what_if import Tally, WhatIf

NICENESS = 10


def report(directory: Path, window_s: float, policy: str | None, changes: list[str]) -> dict[str, Any]:
    """
    Raises:
        EventLogError: there is no log that can be replayed from its beginning.
        ConfigError: no such policy or setting.
    """
    process = process_logs(directory)[-1]
    if not process.is_whole:
        raise EventLogError("the beginning of the log was rotated away; raise event_log.max_files")
    header, name = process.header, policy or process.header.policy
    if name not in POLICIES:
        raise ConfigError(f"no such policy; allowed: {', '.join(POLICIES)}")
    asked = policy_kind(name).make(changed(header.settings, changes), header.backends)
    what_if = WhatIf(LimitedPolicy(asked))
    ends_s = _last_wall_s(process)
    what_if.run(_windowed(process.entries(), what_if, ends_s - window_s))
    return {
        "window_s": window_s,
        "ended_at": ends_s,
        "recorded": {"policy": header.policy, **_counts(what_if.recorded)},
        "asked": {"policy": name, "changes": changes, **_counts(what_if.asked)},
        "stopped": what_if.stopped,
    }


def _last_wall_s(process: ProcessLog) -> float:
    last = deque(read_log(process.files[-1]), maxlen=1)
    return last[0].wall if last else 0.0


def _windowed(entries: Iterable[LogEntry], what_if: WhatIf, begins_s: float) -> Iterator[LogEntry]:
    """All of them; what came before the window is not counted."""
    has_begun = False
    for entry in entries:
        if not has_begun and entry.wall >= begins_s:
            has_begun = True
            what_if.recorded.restart()
            what_if.asked.restart()
        yield entry


def _counts(tally: Tally) -> dict[str, Any]:
    return {
        "forwarded": tally.forwarded,
        "held": tally.held,
        "still_held": len(tally.holding),
        "refused": tally.refused,
        "held_p50_s": tally.held_quantile_s(0.5),
        "held_p95_s": tally.held_quantile_s(0.95),
    }


def main(arguments: list[str]) -> None:
    os.nice(NICENESS)
    directory, window_s, *options = arguments
    policy = next((each.removeprefix("--policy=") for each in options if each.startswith("--policy=")), None)
    changes = [each.removeprefix("--set=") for each in options if each.startswith("--set=")]
    try:
        answer = report(Path(directory), float(window_s), policy, changes)
    except EventLogError as error:
        answer = {"error": str(error)}
    except ConfigError:  # its words quote what was asked
        answer = {
            "error": f"policy or set: no such policy, setting or value; policies: {', '.join(POLICIES)}"
        }
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
