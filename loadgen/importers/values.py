"""Values out of JSON that others wrote: of the type that is expected, or None.

Frameworks change their formats between versions; a field that is missing or of another type is unknown,
and only what makes a transcript useless is an error.
"""

from datetime import UTC, datetime
from typing import Any

Fields = dict[str, Any]


def fields(value: object) -> Fields:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def count(value: object) -> int | None:
    """A number of tokens that was recorded; frameworks write 0 where they know nothing."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def seconds(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < float("inf") else None  # type: ignore[arg-type, operator]


def moment(value: object) -> float | None:
    """ISO 8601, or seconds since 1970. A time without a zone is taken for UTC: only differences count."""
    if not isinstance(value, str):
        return seconds(value)
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def latest(*times: float | None) -> float | None:
    return max((at for at in times if at is not None), default=None)
