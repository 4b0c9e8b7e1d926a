"""What the model server was asked by one agent, in a form in which two runs can be compared.

Ids that are drawn anew in every run become their number in the order in which the agent used them, so that an
id is the same wherever it is used again. Nothing else is left out.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from tests.agents.relay import Asked
from tests.agents.tasks import Task

DRAWN = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?<=[-_])[0-9a-f]{16,32}(?![0-9a-f])")
"""UUIDs, and what follows the kind in vLLM's ids (``chatcmpl-tool-``, ``call_``, ``msg_``)."""


def bodies_of(task: Task, asked: Sequence[Asked]) -> list[dict[str, Any]]:
    texts = [json.dumps(each.body) for each in asked]
    numbers: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return numbers.setdefault(found[0], f"id {len(numbers)}")

    return [json.loads(DRAWN.sub(number, text)) for text in texts if task.marker in text]


def headers_of(task: Task, asked: Sequence[Asked]) -> list[set[str]]:
    """Their names."""
    return [set(each.headers) for each in asked if task.marker in json.dumps(each.body)]
