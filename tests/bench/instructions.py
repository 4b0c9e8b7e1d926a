"""Counts the bytecode instructions that a call executes: its cost, without a clock.

The same on every machine with the same Python, so a test may assert how it grows. What happens in C
(bisection, inserting into a list) is not seen, but a loop, a key function or a comprehension is.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def instructions_of(call: Callable[[], object]) -> int:
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
