"""A whole view and then what changed: together they are the next whole view."""

import json
from typing import Any

from marsproxy.live.feed import INTERVAL_S, MAX_KEPT
from marsproxy.live.routes import COMMENT, HEARTBEAT_S, event, stream
from marsproxy.live.view import LANE_WINDOW_S, MAX_HELD_ROWS
from tests.marsproxy.live.playback import Playback


def applied(whole: dict[str, Any], changes: list[bytes]) -> dict[str, Any]:
    """As the page does it."""
    rows = {row[0]: row[:6] for row in whole["sessions"]}
    now = dict(whole)
    for data in changes:
        change = json.loads(data)
        for row in change.pop("sessions", []):
            rows[row[0]] = row
        for session in change.pop("gone", []):
            rows.pop(session, None)
        now |= change
    return now | {"sessions": rows}


def test_a_view_and_its_changes_make_the_next_view() -> None:
    play = Playback()
    play.reading()
    play.feed.subscribe()
    first, seq = json.loads(play.feed.whole()), play.feed.seq
    changes: list[bytes] = []
    for number in range(8):
        turn = play.arrives(f"s{number}", prompt_tokens=9_000)
        if number % 2:
            play.answered(turn, tool=None if number % 3 else "bash")
        play.now += INTERVAL_S
        play.reading(kv_used_ratio=number / 10)
        new = play.feed.changes_since(seq)
        assert new is not None
        changes, seq = changes + new, play.feed.seq
    whole = json.loads(play.feed.whole())
    built = applied(first, changes)
    assert built["sessions"] == {row[0]: row[:6] for row in whole["sessions"]}
    for part in ("backends", "hosts", "held", "held_total", "times", "seq"):
        assert built[part] == whole[part], part
    assert whole["held_total"] > 0


def test_nothing_new_is_not_told() -> None:
    play = Playback()
    play.reading()
    play.feed.subscribe()
    play.now += INTERVAL_S
    assert play.feed.changes_since(play.feed.seq) == []
    assert play.feed.seq == 0


def test_changes_come_five_times_a_second_at_most() -> None:
    play = Playback()
    play.reading()
    play.feed.subscribe()
    for number in range(20):
        play.arrives(f"s{number}", prompt_tokens=100)
        play.now += INTERVAL_S / 4
        play.feed.changes_since(0)
    assert play.feed.seq == 5


def test_unknown_stays_unknown() -> None:
    """Never zero: a backend that says nothing is not an idle one."""
    play = Playback("silent")
    play.feed.subscribe()
    [row] = json.loads(play.feed.whole())["backends"]
    for known in ("pool", "used", "leased", "free", "reserved", "budget", "running", "waiting"):
        assert row[known] is None, known
    assert row["state"] == "unknown"
    assert json.loads(play.feed.whole())["times"]["ttft"] == {"n": 0, "p50": None, "p95": None}


def test_a_stale_reading_is_unknown() -> None:
    play = Playback()
    play.reading(kv_leased_tokens=100)
    play.now += 60.0
    play.feed.subscribe()
    [row] = json.loads(play.feed.whole())["backends"]
    assert (row["used"], row["leased"], row["free"], row["state"]) == (None, None, None, "unknown")


def test_who_falls_far_behind_starts_anew() -> None:
    play = Playback()
    play.reading()
    play.feed.subscribe()
    for number in range(MAX_KEPT + 5):
        play.arrives(f"s{number}", prompt_tokens=100)
        play.now += INTERVAL_S
        play.feed.changes_since(play.feed.seq)
    assert play.feed.changes_since(0) is None
    assert len(play.feed.changes_since(play.feed.seq - MAX_KEPT + 1) or []) == MAX_KEPT - 1


def test_long_quiet_sessions_leave_and_the_queue_is_cut() -> None:
    play = Playback()
    play.reading()
    turns = [play.arrives(f"s{number}", prompt_tokens=9_000) for number in range(MAX_HELD_ROWS + 20)]
    play.feed.subscribe()
    whole = json.loads(play.feed.whole())
    assert len(whole["held"]) == MAX_HELD_ROWS
    assert whole["held_total"] > MAX_HELD_ROWS
    play.answered(turns[0], tool=None)
    play.now += LANE_WINDOW_S + 1
    [change] = play.feed.changes_since(0) or []
    assert "s0" in json.loads(change)["gone"]


def test_nothing_is_kept_while_nobody_looks() -> None:
    play = Playback()
    play.reading()
    assert play.watch.changed is None
    play.feed.subscribe()
    assert play.watch.changed == {}
    play.feed.leave()
    play.arrives("a")
    assert play.watch.changed is None


async def test_a_stream_ends_with_the_proxy_and_gives_its_place_back() -> None:
    """A stop must not wait for those who only look."""
    play = Playback()
    play.reading()
    leaving = [False, False, True]
    sent = [part async for part in stream(play.feed, lambda: leaving.pop(0), pause=play.passes)]
    assert sent[0].startswith(b"event: snapshot\ndata: {")
    assert play.feed.subscribers == 0
    assert event("x", b"{}") == b"event: x\ndata: {}\n\n"


async def test_a_stream_that_is_left_gives_its_place_back() -> None:
    """Whoever closes the page."""
    play = Playback()
    play.reading()
    parts = stream(play.feed, lambda: False, pause=play.passes)
    await anext(parts)
    assert play.feed.subscribers == 1
    await parts.aclose()
    assert play.feed.subscribers == 0


async def test_a_silent_stream_says_that_it_is_there() -> None:
    play = Playback()
    play.reading()
    steps = iter([False] * round(HEARTBEAT_S / INTERVAL_S + 2))
    parts = [part async for part in stream(play.feed, lambda: next(steps, True), pause=play.stands)]
    assert parts[1:] == [COMMENT]
