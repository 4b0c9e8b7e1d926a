"""Which tool-call ids can name a session.

Backends write random ids (``chatcmpl-tool-`` and 16 or 32 hex digits in vLLM, ``call_`` and 24 letters and
digits at OpenAI, ``toolu_01`` and 22 at Anthropic) or count: ``functions.bash:0`` (Kimi), ``call_0``, ``c1``.
A counted id appears in every session, so an echo of one proves nothing.
"""

import re

MIN_CHANGES = 3
"""Changes between letter and digit inside the words of an id. A word with a number at its end has one,
24 random letters and digits have six on average, a UUID fifteen. A random id that falls short goes unused."""
MIN_CHARS = 9
"""As long as the shortest random ids in use (Mistral)."""
MAX_CHARS = 256

_COUNTED = re.compile(r":\d+$")
_CHANGE = re.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_LONG_NUMBER = re.compile(r"[0-9]{16,}")
"""Random, or in nanoseconds. A time in seconds or milliseconds is shorter, and several calls share it."""


def is_unique_looking(call_id: str) -> bool:
    if not MIN_CHARS <= len(call_id) <= MAX_CHARS or _COUNTED.search(call_id):
        return False
    return len(_CHANGE.findall(call_id)) >= MIN_CHANGES or _LONG_NUMBER.search(call_id) is not None
