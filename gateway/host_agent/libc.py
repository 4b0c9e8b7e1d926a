"""The C library, for system calls that Python has no name for. Owns how a failure becomes an OSError."""

from __future__ import annotations

import ctypes
import functools
import os


@functools.cache
def libc() -> ctypes.CDLL:
    """Raises OSError: there is none that can be asked."""
    return ctypes.CDLL(None, use_errno=True)


def call(name: str, *numbers: int) -> None:
    """Of a function that returns 0 when it did what it should. Raises OSError."""
    if getattr(libc(), name)(*(ctypes.c_ulong(each) for each in numbers)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
