"""How long a prefill takes on the engine at hand, learned from times to first token.

The policies of the papers take it from an offline profile of model and hardware; here the traffic is the
profile. A time to first token is a prefill and whatever it waited for, never less than the prefill: so of
the seconds per token that were seen, the least is the engine's own speed. They are kept per power of two
of the prompt's length, because attention makes every token of a long prompt dearer. Where all prompts of a
length had to wait, the wait passes for prefill: under constant overload the times come out too long.
"""

from marsproxy.core.baselines.windows import SortedWindow

WINDOW = 512
"""Turns per length. Long, because hardware changes rarely and a prompt that did not wait may be rare too:
over 64, and with a low quantile, prompts of 33,000 tokens seemed to take five times what they do."""
MIN_TOKENS = 512
"""Of a shorter prefill the fixed cost of a step (some milliseconds) is a large part."""
MIN_COLD_SHARE = 0.5
"""A few new tokens after a long cached prefix attend to all of it, and would pass for slow ones."""
PRIOR_S_PER_TOKEN = 5e-5
"""Until something was seen: 20,000 tokens a second, what a roofline of an H100-class accelerator gives for
a mixture-of-experts model of 3 billion active parameters and a prompt of 25,000 tokens."""


class PrefillTimes:
    """Seconds that a prompt of which nothing is cached takes from its first step to its first token."""

    def __init__(self) -> None:
        self._by_length: dict[int, SortedWindow] = {}

    def learn(self, prompt_tokens: int, cached_tokens: int, ttft_s: float) -> None:
        cold_tokens = prompt_tokens - cached_tokens
        if cold_tokens >= MIN_TOKENS and cold_tokens >= MIN_COLD_SHARE * prompt_tokens:
            window = self._by_length.setdefault(cold_tokens.bit_length(), SortedWindow(WINDOW))
            window.add(ttft_s / cold_tokens)

    def seconds(self, tokens: float) -> float:
        return tokens * self._s_per_token(int(tokens))

    def _s_per_token(self, tokens: int) -> float:
        """As seen at the nearest length; of two as near, the shorter."""
        if not self._by_length:
            return PRIOR_S_PER_TOKEN
        wanted = tokens.bit_length()
        nearest = min(self._by_length, key=lambda length: (abs(length - wanted), length))
        return self._by_length[nearest].ascending[0]
