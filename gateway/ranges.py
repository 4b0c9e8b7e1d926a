"""Byte ranges as HTTP asks for them (RFC 9110, section 14).

Owns reading ``Range`` and fitting it to a size. One range is served; what asks for more, or in words that
we do not know, is answered with the whole, which the RFC allows.
"""

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*", re.ASCII)
"""19 digits: more than any file has bytes, and few enough for 64 bits."""


class Unsatisfiable(Exception):
    """Nothing of what was asked for is there."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from ``start`` up to, without, ``stop``."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class ByteRange:
    """``first`` to ``last``, both included; without ``first``, the ``last`` bytes of all."""

    first: int | None
    last: int | None

    def within(self, size: int) -> Span:
        """Raises Unsatisfiable."""
        if self.first is None:
            assert self.last is not None
            start, stop = max(0, size - self.last), size
        else:
            start, stop = self.first, size if self.last is None else min(self.last + 1, size)
        if start >= stop:
            raise Unsatisfiable
        return Span(start, stop)


def read_range(header: str | None) -> ByteRange | None:
    """None: the whole is asked for, or something that we do not serve."""
    found = _ONE_RANGE.fullmatch(header or "")
    if found is None:
        return None
    first, last = (int(digits) if digits else None for digits in found.groups())
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        return None
    return ByteRange(first, last)
