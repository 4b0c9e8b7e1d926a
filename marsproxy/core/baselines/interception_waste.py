"""Memory wasted by a session that waits for its tool, as InferCept counts it (arXiv 2402.01869).

Waste is tokens of KV held to no use, times the seconds that they are (the paper multiplies all of it by
the bytes of a token, which cancel). C is the session's context, C_other that of everything that runs
beside it, T(x) the time of a prefill of x tokens:

    preserve          T_gap * C                                     equation 2
    discard           T(C) * C / 2  +  n * T(C / n) * C_other       equation 4: recomputed in n chunks
    swap              2 * T_swap(C) * C_batch                       equation 3: out, and in again

The paper moves swaps behind the forward passes in chunks (section 4.1); what fits there wastes nothing.
"""

from collections.abc import Callable
from math import ceil

CHUNK_TOKENS = 8192
"""Tokens of one step's prefill: vLLM's max_num_batched_tokens on the large accelerators. The paper's
chunk is what saturates the accelerator beside the running batch, found by profiling."""


def discard_waste(context_tokens: float, other_tokens: float, prefill_s: Callable[[float], float]) -> float:
    chunks = max(1, ceil(context_tokens / CHUNK_TOKENS))
    stalled_s = chunks * prefill_s(context_tokens / chunks)
    return prefill_s(context_tokens) * context_tokens / 2 + stalled_s * other_tokens


def break_even_s(context_tokens: float, other_tokens: float, prefill_s: Callable[[float], float]) -> float:
    """The gap for which preserving, which wastes the context for as long, wastes as much as discarding."""
    return discard_waste(context_tokens, other_tokens, prefill_s) / max(context_tokens, 1)
