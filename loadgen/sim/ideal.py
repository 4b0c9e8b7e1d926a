"""How long a session takes when it has server and tool host to itself: the yardstick of goodput."""

from backend_patch.step_time import StepTime
from loadgen.workload import Session

BLOCK_TOKENS = 16
CHUNK_TOKENS = 8192
"""As the simulated engine's defaults."""


def ideal_session_s(session: Session, step_time: StepTime) -> float:
    """Seconds of its turns, tools and pauses in a row, every continuation warm."""
    return sum(ideal_turns_s(session, step_time)) + sum(gap_s(session, i) for i in range(len(session.turns)))


def ideal_work_s(session: Session, step_time: StepTime) -> float:
    """The same without the user's pauses."""
    tools_s = sum(turn.tool.duration_s for turn in session.turns if turn.tool)
    return sum(ideal_turns_s(session, step_time)) + tools_s


def ideal_turns_s(session: Session, step_time: StepTime) -> list[float]:
    turns_s = []
    cached, context = 0, session.system_tokens
    for turn in session.turns:
        prompt = context + turn.new_tokens
        turns_s.append(prefill_s(cached, prompt, step_time) + decode_s(prompt, turn.output_tokens, step_time))
        context = prompt + turn.output_tokens
        cached = context // BLOCK_TOKENS * BLOCK_TOKENS
    return turns_s


def gap_s(session: Session, index: int) -> float:
    turn = session.turns[index]
    return (turn.tool.duration_s if turn.tool else 0.0) + (turn.think_s or 0.0)


def prefill_s(cached: int, prompt: int, step_time: StepTime) -> float:
    """Up to the first token, in chunks."""
    seconds = 0.0
    while cached < prompt:
        chunk = min(CHUNK_TOKENS, prompt - cached)
        seconds += step_time.seconds([(cached, chunk)])
        cached += chunk
    return seconds


def decode_s(prompt: int, output: int, step_time: StepTime) -> float:
    """The tokens after the first. Linear in the context, so the mid-point stands for all."""
    steps = output - 1
    return steps * step_time.seconds([(prompt + (steps - 1) / 2, 1)]) if steps else 0.0
