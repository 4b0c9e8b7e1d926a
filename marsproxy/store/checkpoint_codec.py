"""A whole state as bytes, for those who join: pickled, and compressed.

What may be in it is ``state_pickle``'s business: the worst that a forged checkpoint can do is a wrong state.
Both directions are bounded in size.
"""

import zlib

from marsproxy import state_pickle
from marsproxy.core.shared_state import SharedState

MAX_STATE_BYTES = 1 << 30
"""Pickled. 20,000 sessions of nine messages take 24 MB (measured)."""
MAX_CHECKPOINT_BYTES = 256 << 20
"""Compressed: half of what one value in Redis may have."""
COMPRESSION = 1
"""zlib's level. 6 makes a checkpoint 8 % smaller (measured: 3.7 instead of 4.0 MB for 10,000 sessions)."""


class Unusable(Exception):
    """No checkpoint can be made, or this one cannot be read."""


def pickled(state: SharedState) -> bytes:
    """The state at this moment. On the event loop: nothing may happen to the state meanwhile.

    Raises:
        Unusable: it is too large.
    """
    content = state_pickle.write(state)
    if len(content) > MAX_STATE_BYTES:
        raise Unusable(f"the state takes {len(content)} bytes; allowed: {MAX_STATE_BYTES}")
    return content


def compressed(content: bytes) -> bytes:
    """Lets other threads run.

    Raises:
        Unusable: it is too large.
    """
    packed = zlib.compress(content, COMPRESSION)
    if len(packed) > MAX_CHECKPOINT_BYTES:
        raise Unusable(f"the checkpoint takes {len(packed)} bytes; allowed: {MAX_CHECKPOINT_BYTES}")
    return packed


def decompressed(packed: bytes) -> bytes:
    """
    Raises:
        Unusable: it is no checkpoint, or too large.
    """
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(packed, MAX_STATE_BYTES)
    except zlib.error as error:
        raise Unusable("not a compressed state") from error
    if not inflate.eof:
        raise Unusable("cut short, or larger than a state may be")
    return content


def unpickled(content: bytes) -> SharedState:
    """
    Raises:
        Unusable: there is something else in it than a state.
    """
    try:
        return state_pickle.read_state(content)
    except state_pickle.Forbidden as error:
        raise Unusable(f"not a state: {error}") from error
