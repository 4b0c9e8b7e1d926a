"""``--format``: the part of Go's templates that scripts use: ``{{.State.Running}}``, ``{{json .Config}}``.

Owns reading them. Anything more (``range``, ``if``, pipes) is an error, not an empty answer.
"""

from __future__ import annotations

import json

from gateway.shims.docker_words import UsageFault


def filled(template: str, record: object) -> str:
    """Raises UsageFault."""
    text, rest = "", template.replace("\\t", "\t").replace("\\n", "\n")
    while rest:
        before, begins, rest = rest.partition("{{")
        text += before
        if begins:
            expression, ends, rest = rest.partition("}}")
            if not ends:
                raise UsageFault(f"--format: an unclosed {{{{ in {template!r}")
            text += _value(expression.strip(), record)
    return text


def _value(expression: str, record: object) -> str:
    words = expression.split()
    as_json = words[:1] == ["json"]
    path = words[-1] if words else ""
    if len(words) != 1 + as_json or not path.startswith("."):
        raise UsageFault(f"--format: only {{{{.A.B}}}} and {{{{json .A.B}}}} are known, not {expression!r}")
    found = record
    for name in filter(None, path.split(".")):
        if not isinstance(found, dict) or name not in found:
            raise UsageFault(f"--format: there is no {name!r} in {path!r}")
        found = found[name]
    if as_json or isinstance(found, (dict, list)):
        return json.dumps(found)
    if isinstance(found, bool):
        return "true" if found else "false"
    return str(found)
