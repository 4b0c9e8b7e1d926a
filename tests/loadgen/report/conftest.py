"""Makes run directories of realistic shape, from a toy model of sessions on a server that fills up."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadgen.records import GaugeSample, SessionRecord, TurnRecord
from loadgen.summary import summarise

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run() -> WriteRun:
    return write_synthetic_run


def write_synthetic_run(
    path: Path,
    *,
    sessions: int = 30,
    turns: int = 12,
    seed: int = 1,
    slowdown: float = 1.0,
    is_proxy: bool = False,
    fail_share: float = 0.0,
    session_prefix: str = "session-",
    gauges: bool = True,
    **meta: Any,
) -> Path:
    rng = random.Random(f"{seed} {slowdown} {is_proxy}")
    runs = [
        _session(rng, f"{session_prefix}{index:04d}", turns, slowdown, is_proxy, fail_share)
        for index in range(sessions)
    ]
    all_turns = [turn for _, of_session in runs for turn in of_session]
    all_sessions = [session for session, _ in runs]
    path.mkdir(parents=True)
    _write_lines(path / "turns.jsonl", all_turns)
    _write_lines(path / "sessions.jsonl", all_sessions)
    if gauges:
        _write_lines(path / "gauges.jsonl", _gauges(rng, all_turns, is_proxy))
    settings = {"workload": "autonomous", "hardware": "h100", "seed": seed, "commit": "0123abc", **meta}
    settings.setdefault("preemptions", 0 if is_proxy else 214)
    summary = summarise(all_turns, all_sessions, settings)
    (path / "summary.json").write_bytes(msgspec.json.encode(summary))
    return path


def _session(
    rng: random.Random, name: str, turns: int, slowdown: float, is_proxy: bool, fail_share: float
) -> tuple[SessionRecord, list[TurnRecord]]:
    arrival_s = rng.uniform(0, 60)
    at_s, context = arrival_s, 4000
    records: list[TurnRecord] = []
    failing_turn = rng.randint(1, turns) if rng.random() < fail_share else None
    for number in range(1, turns + 1):
        turn = _turn(rng, name, number, at_s, context, slowdown, is_proxy, is_last=number == turns)
        if number == failing_turn:
            turn.last_token_s = turn.tool_start_s = turn.tool_end_s = turn.tool_queue_s = None
            turn.error, turn.status = "503 no room for <this> & that", 503
        records.append(turn)
        if turn.error or turn.last_token_s is None:
            break
        at_s = turn.tool_end_s if turn.tool_end_s is not None else turn.last_token_s
        context += 700
    answered = [turn for turn in records if turn.error is None]
    session = SessionRecord(
        session=name,
        arrival_s=arrival_s,
        end_s=records[-1].last_token_s,
        turns_planned=turns,
        turns_completed=len(answered),
        prompt_tokens=sum(turn.prompt_tokens or 0 for turn in answered),
        cached_tokens=sum(turn.cached_tokens or 0 for turn in answered),
        output_tokens=sum(turn.output_tokens or 0 for turn in answered),
        ideal_s=4.0 * turns,
        error=records[-1].error,
    )
    return session, records


def _turn(
    rng: random.Random,
    name: str,
    number: int,
    at_s: float,
    context: int,
    slowdown: float,
    is_proxy: bool,
    *,
    is_last: bool,
) -> TurnRecord:
    is_warm = number > 1 and rng.random() < (0.97 if is_proxy else 0.35)
    held_s = (rng.uniform(2, 40) if number == 1 else 0.0) if is_proxy else None
    prefill_s = (0.05 if is_warm else 0.4 + rng.expovariate(1 / 2.5)) * slowdown
    first_s = at_s + (held_s or 0.0) + prefill_s
    last_s = first_s + rng.uniform(1.0, 3.0) * slowdown
    queue_s, run_s = rng.choice((0.0, 0.0, 0.4)), rng.lognormvariate(0.3, 1.0)
    gap_end_s = last_s + queue_s + run_s
    return TurnRecord(
        session=name,
        turn=number,
        is_continuation=number > 1,
        due_s=at_s,
        sent_s=at_s,
        first_token_s=first_s,
        last_token_s=last_s,
        prompt_tokens=context,
        cached_tokens=context - 700 if is_warm else 0,
        output_tokens=rng.randint(60, 240),
        tool=None if is_last else "bash",
        tool_queue_s=None if is_last else queue_s,
        tool_run_s=None if is_last else run_s,
        tool_start_s=None if is_last else last_s,
        tool_end_s=None if is_last else gap_end_s,
        held_s=held_s,
        status=200,
        loop_lag_s=rng.uniform(0, 0.004),
    )


def _gauges(rng: random.Random, turns: list[TurnRecord], is_proxy: bool) -> list[GaugeSample]:
    ends = [turn.last_token_s for turn in turns if turn.last_token_s is not None]
    samples = []
    for at_s in range(int(max(ends, default=0)) + 1):
        running = sum(t.sent_s + (t.held_s or 0) <= at_s < (t.last_token_s or t.sent_s) for t in turns)
        held = sum(t.sent_s <= at_s < t.sent_s + (t.held_s or 0) for t in turns)
        samples.append(
            GaugeSample(
                at_s=float(at_s),
                kv_used_ratio=min(1.0, running / 16 + rng.uniform(0, 0.05)),
                running=min(running, 14),
                waiting=max(running - 14, 0),
                held_sessions=held if is_proxy else None,
            )
        )
    return samples


def _write_lines(path: Path, records: list[Any]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
