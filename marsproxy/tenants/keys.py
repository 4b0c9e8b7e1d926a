"""API keys: how one is made, what is kept of it, and how it is recognised.

A key is ``mars-ID-SECRET``: 32 public bits, by which its record is found, and 256 random ones. Of the secret
only a salted SHA-256 is kept. A slow hash (bcrypt, Argon2) is for secrets that can be guessed: it makes every
guess dear. Nobody guesses 256 random bits at any price, so it would protect nothing, and would let anybody
spend 50 ms of our processor with every wrong key. For the same reason no key is chosen by people.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

ID_BYTES = 4
"""Finds a record among many; that two keys get the same one is noticed when the file is read."""
SECRET_BYTES = 32
SALT_BYTES = 16
"""Two records of one key look different (NIST SP 800-132 asks for 16 bytes)."""
MAX_KEY_CHARACTERS = 128
"""More is no key of ours, and is not hashed."""

_KEY = re.compile(r"mars-([0-9a-f]{8})-[A-Za-z0-9_-]{43}")
_RECORD = re.compile(r"sha256:([0-9a-f]{8}):([0-9a-f]{32}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key."""

    id: str
    salt: bytes
    digest: bytes

    def __repr__(self) -> str:
        return f"KeyRecord({self.id}, not shown)"

    def __str__(self) -> str:
        """The line for the file."""
        return f"sha256:{self.id}:{self.salt.hex()}:{self.digest.hex()}"

    def fits(self, key: str) -> bool:
        """In a time that does not depend on how much of it does."""
        return hmac.compare_digest(_digest(self.salt, key), self.digest)


def new_key() -> tuple[str, KeyRecord]:
    """The only time that the key itself is known here."""
    key_id = secrets.token_hex(ID_BYTES)
    key = f"mars-{key_id}-{secrets.token_urlsafe(SECRET_BYTES)}"
    salt = secrets.token_bytes(SALT_BYTES)
    return key, KeyRecord(key_id, salt, _digest(salt, key))


def key_id_of(key: str) -> str | None:
    """None for what is no key of ours."""
    if len(key) > MAX_KEY_CHARACTERS or (found := _KEY.fullmatch(key)) is None:
        return None
    return found[1]


def read_record(text: str) -> KeyRecord | None:
    """None for what is no record."""
    if (found := _RECORD.fullmatch(text)) is None:
        return None
    return KeyRecord(found[1], bytes.fromhex(found[2]), bytes.fromhex(found[3]))


def _digest(salt: bytes, key: str) -> bytes:
    return hashlib.sha256(salt + key.encode()).digest()
