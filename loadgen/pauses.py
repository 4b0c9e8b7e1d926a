"""Keeps the interpreter's own pauses out of what is measured."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (5_000, 10, 200)
"""Young objects are collected often and briefly; a full collection waits for ten million net allocations.
With the default (700, 10, 10) on CPython 3.11, a thousand sessions meet full collections of 0.1 to 0.25 s
every few seconds, and every TTFT in flight shows them."""


@contextmanager
def no_long_collections() -> Iterator[None]:
    """For the length of a run; the process is as before afterwards."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
