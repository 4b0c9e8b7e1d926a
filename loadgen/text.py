"""Prompt text of a wanted length in tokens: unique per session, shared where a system prompt is shared.

Length is in characters, by a measured number of characters per token; exact token counts are the
server's own (``usage``). Content is noise of English words and code marks, cut from one pool: a prefix
cache hashes a block with everything before it, so equal slices behind different openings share nothing.
"""

from random import Random

DEFAULT_CHARS_PER_TOKEN = 4.0
"""English text and code in the byte-pair vocabularies of today's models; used where /tokenize is missing."""
POOL_CHARS = 1 << 18
SAMPLED = 2
"""Of how many combinations one is in the sample: three of it have to fit into a small model's context."""
WHOLE_CHARS = 16
WORDS = (
    "the a of to in is for on with error test file line value return import class def self if else None "
    "True path name data list dict index key result expected actual assert module function argument type "
    "object call stack trace request response session token cache block queue worker run build install "
    "version package config option default set get update delete create read write open close first last "
    "next before after between from where when which while each every some other only more less than same"
)
MARKS = (" ", " ", " ", " ", " ", ", ", ". ", "\n", ": ", "(", ") ", " = ", "\n    ", "_", ".")


class TextSource:
    def __init__(self, seed: int, chars_per_token: float = DEFAULT_CHARS_PER_TOKEN) -> None:
        self.chars_per_token = chars_per_token
        rng = Random(f"text/{seed}")
        words = rng.choices(WORDS.split(), k=POOL_CHARS // 5)
        marks = rng.choices(MARKS, k=POOL_CHARS // 5)
        self._pool = "".join(word + mark for word, mark in zip(words, marks, strict=True))

    def sample(self) -> str:
        """What to measure the characters per token on: every word and mark of the pool equally often."""
        pieces = [
            word + mark
            for i, word in enumerate(WORDS.split())
            for j, mark in enumerate(MARKS)
            if (i + j) % SAMPLED == 0
        ]
        Random("sample").shuffle(pieces)
        text = "".join(pieces)
        # Whole tokens also where a token is four bytes, as in the embedded engine.
        return text[: len(text) // WHOLE_CHARS * WHOLE_CHARS]

    def system_prompt(self, system_id: str, tokens: int) -> str:
        return self._slice(f"You are an agent. Policy {system_id}.\n", f"system/{system_id}", tokens)

    def message(self, session_id: str, turn: int, tokens: int) -> str:
        # One opening makes the whole session its own. Names have more tokens than their length tells, so
        # later turns, which are often short, go without.
        opening = f"[{session_id}]\n" if turn == 1 else ""
        return self._slice(opening, f"{session_id}/{turn}", tokens)

    def _slice(self, opening: str, key: str, tokens: int) -> str:
        chars = max(1, round(tokens * self.chars_per_token))
        # From a blank on: half a word has more tokens than its length tells.
        start = max(0, self._pool.rfind(" ", 0, Random(key).randrange(len(self._pool))))
        body = chars - len(opening)
        if body <= 0:
            return opening[:chars]
        laps = (start + body) // len(self._pool) + 1
        return opening + (self._pool * laps)[start : start + body]
