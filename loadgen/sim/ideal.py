"""How long a session takes when it has server and tool host to itself: the yardstick of goodput."""

from backend_patch.step_time import StepTime
from loadgen.sim.settings import BLOCK_TOKENS
from loadgen.workload import Session

CHUNK_TOKENS = 8192
"""Most tokens of a step: the simulated engine's default."""


def ideal_session_s(session: Session, step_time: StepTime, chunk_tokens: int = CHUNK_TOKENS) -> float:
    """Seconds from the first arrival to the last token: turns, tools and pauses in a row, every
    continuation warm. What would follow the last turn is nobody's wait."""
    turns_s = ideal_turns_s(session, step_time, chunk_tokens)
    return sum(turns_s) + sum(gap_s(session, i) for i in range(len(session.turns) - 1))


def ideal_work_s(session: Session, step_time: StepTime) -> float:
    """The same without the user's pauses."""
    tools_s = sum(turn.tool.traced_s for turn in session.turns[:-1] if turn.tool)
    return sum(ideal_turns_s(session, step_time)) + tools_s


def ideal_turns_s(session: Session, step_time: StepTime, chunk_tokens: int = CHUNK_TOKENS) -> list[float]:
    turns_s = []
    cached, context = 0, session.system_tokens
    for turn in session.turns:
        prompt = context + turn.new_tokens
        prefill = prefill_s(min(cached, whole_blocks(prompt)), prompt, step_time, chunk_tokens)
        turns_s.append(prefill + decode_s(prompt, turn.output_tokens, step_time))
        context = prompt + turn.output_tokens
        cached = whole_blocks(context)
    return turns_s


def gap_s(session: Session, index: int) -> float:
    turn = session.turns[index]
    return (turn.tool.traced_s if turn.tool else 0.0) + (turn.think_s or 0.0)


def whole_blocks(tokens: int) -> int:
    """Tokens of a text that can be cached: of its last one the KV is not computed, or not used."""
    return (tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS


def prefill_s(cached: int, prompt: int, step_time: StepTime, chunk_tokens: int = CHUNK_TOKENS) -> float:
    """Up to the first token, in chunks."""
    seconds = 0.0
    while cached < prompt:
        chunk = min(chunk_tokens, prompt - cached)
        seconds += step_time.seconds([(cached, chunk)])
        cached += chunk
    return seconds


def decode_s(prompt: int, output: int, step_time: StepTime) -> float:
    """The tokens after the first. Linear in the context, so the mid-point stands for all."""
    steps = output - 1
    return steps * step_time.seconds([(prompt + (steps - 1) / 2, 1)]) if steps else 0.0
