"""Who may share a state: replicas that come to the same decisions from the same records.

That takes the same source of ``marsproxy.core`` and the same policy with the same settings. The
fingerprint of all that is in every key of the store, so others do not even see each other. Backends are
not in it: which there are is a part of the state, told by the replica that leads.
"""

import hashlib
import sys
from pathlib import Path

import msgspec

import marsproxy.core
from marsproxy.core.settings import PolicySettings
from marsproxy.store.record_codec import SCHEMA

_BYTES = 8
"""16 hex digits: it tells versions apart and keeps no secret."""


def fingerprint(policy: str, settings: PolicySettings) -> str:
    """Reads the whole source."""
    digest = hashlib.blake2b(digest_size=_BYTES)
    said = (SCHEMA, sys.version_info[:2], policy, settings)
    digest.update(msgspec.json.encode(said))
    for name, source in _sources():
        digest.update(name.encode() + b"\0" + source + b"\0")
    return digest.hexdigest()


def _sources() -> list[tuple[str, bytes]]:
    folder = Path(marsproxy.core.__path__[0])
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in sorted(folder.rglob("*.py"))]
