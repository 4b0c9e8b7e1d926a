"""``marsproxy top``: the live page in a terminal, from the same feed.

Owns how a view looks in text. Colours are never alone: each has its word beside it.
"""

from collections import Counter
from typing import Any

import httpx
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from marsproxy.live.client import NoAnswer, asking, views
from marsproxy.live.words import seconds

STYLES = {"generating": "blue", "tool": "yellow", "held": "bright_black", "evicted": "red", "idle": "dim"}
BAR = 30
"""Characters."""
UNKNOWN = "unknown"
DECISIONS = 6
LINES_AROUND = 14
"""Titles, heads and totals: what is left of the terminal's height goes to the queue and the sessions."""


def run_top(*, url: str, once: bool, transport: httpx.BaseTransport | None = None) -> int:
    """Until Ctrl-C, or the proxy ends; returns the exit code."""
    console = Console()
    try:
        with asking(url, transport) as client:
            if once:
                console.print(picture(next(views(client)), max(console.height, 40)))
                return 0
            with Live(console=console, screen=True, auto_refresh=False) as live:
                for view in views(client):
                    live.update(picture(view, console.height), refresh=True)
    except NoAnswer as error:
        Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(f"marsproxy top: {error}")
        return 1
    return 0


def picture(view: dict[str, Any], height: int) -> RenderableType:
    room = max(4, height - LINES_AROUND - 2 * len(view["backends"]) - len(view["hosts"]) - DECISIONS)
    return Group(
        _totals(view),
        _backends(view["backends"]),
        _hosts(view["hosts"]),
        _held(view, room // 2),
        _sessions(view, room - room // 2),
        _decisions(view["decisions"]),
    )


def _totals(view: dict[str, Any]) -> Text:
    counts = Counter(row[1] for row in view["sessions"].values())
    said = Text("MARS  ", style="bold")
    for state in ("generating", "tool", "held", "evicted"):
        said.append(f"{counts[state]} {state}  ", STYLES[state])
    times = view["times"]
    said.append(f"TTFT {_time(times['ttft'])}  JCT {_time(times['jct'])}")
    return said


def _time(share: dict[str, Any]) -> str:
    return UNKNOWN if share["p50"] is None else f"{seconds(share['p50'])} (p95 {seconds(share['p95'])})"


def _backends(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "backend", "", "in use", "leased", "free", "promised", "of", "runs", "waits", box=None, pad_edge=False
    )
    for row in rows:
        state = "" if row["state"] == "serving" else f" ({row['state']})"
        known = (row[name] for name in ("used", "leased", "free", "reserved", "budget", "running", "waiting"))
        table.add_row(Text(f"{row['name']}{state}"), _bar(row), *map(_count, known))
    return table


def _bar(row: dict[str, Any]) -> Text:
    if row["pool"] is None or row["used"] is None:
        return Text("?" * BAR, style="dim")
    used = min(BAR, round(BAR * row["used"] / row["pool"]))
    leased = min(BAR - used, round(BAR * (row["leased"] or 0) / row["pool"]))
    bar = Text("#" * used, style="blue")
    bar.append("=" * leased, "magenta")
    return bar.append("." * (BAR - used - leased), "dim")


def _count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.10g}"


def _hosts(rows: list[dict[str, Any]]) -> Table | Text:
    if not rows:
        return Text("tool hosts: unknown", style="dim")
    table = Table("tool host", "cores", "runs", "waits", "MB free", "of", box=None, pad_edge=False)
    names = ("cores", "running", "queued", "memory_available_mb", "memory_total_mb")
    for row in rows:
        table.add_row(Text(row["name"]), *(_count(row[name]) for name in names))
    return table


def _held(view: dict[str, Any], most: int) -> Table | Text:
    if not view["held"]:
        return Text("nobody waits", style="dim")
    table = Table(f"{view['held_total']} held", "for", "because", box=None, pad_edge=False)
    for row in view["held"][:most]:
        table.add_row(row["session"], seconds(max(0.0, view["now"] - row["since"])), Text(row["why"]))
    return table


def _sessions(view: dict[str, Any], most: int) -> Table:
    """Those whose state changed last."""
    table = Table("session", "state", "for", "turns", "context", "backend", box=None, pad_edge=False)
    latest = sorted(view["sessions"].values(), key=lambda row: row[2], reverse=True)
    for session_id, state, since_s, backend, context, turns, *_ in latest[:most]:
        since = seconds(max(0.0, view["now"] - since_s))
        said = Text(state, style=STYLES.get(state, "dim"))
        table.add_row(session_id, said, since, _count(turns), _count(context), Text(backend or "-"))
    return table


def _decisions(decisions: list[dict[str, Any]]) -> Group:
    lines = [Text(f"{each['session'][:10]} {each['words']}", no_wrap=True) for each in decisions[-DECISIONS:]]
    for line in lines:
        line.overflow = "ellipsis"
    return Group(*reversed(lines))
