"""The file that names the tenants: read as a whole, or refused as a whole.

Owns its form and its bounds. An error names the file, the tenant and the field, and what is allowed there; a
value is never quoted, for it may be a key that somebody put in the wrong place.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from marsproxy.config_sources import did_you_mean
from marsproxy.core.events import TenantLimits
from marsproxy.core.settings import ConfigError
from marsproxy.tenants.keys import KeyRecord, read_record

MAX_TENANTS = 10_000
"""Each costs about a kilobyte here, and in every replica's policy."""
MAX_KEYS = 16
"""Of one tenant: the old and the new one while keys are changed, for a few services."""
MAX_FILE_BYTES = 16 << 20
"""Of ten thousand tenants with their keys."""

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Positive = Annotated[float, Meta(gt=0, le=1e12)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class TenantEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One table ``[tenants.NAME]``."""

    keys: Annotated[list[str], Meta(max_length=MAX_KEYS)]
    weight: Annotated[float, Meta(ge=0.001, le=1000)] = 1.0
    max_open_turns: Count | None = None
    max_sessions: Count | None = None
    tokens_per_s: Positive | None = None
    burst_tokens: Positive | None = None
    models: Annotated[list[str], Meta(min_length=1, max_length=1000)] | None = None
    expires: Any = None
    """TOML has dates of its own."""


FIELDS = TenantEntry.__struct_fields__


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    keys: tuple[KeyRecord, ...]
    limits: TenantLimits
    models: frozenset[str] | None = None
    """Those that it may use; None is all."""
    expires_s: float | None = None
    """Seconds since 1970 from which its keys are not taken any more."""


def tenant_id(name: str) -> str:
    """What the policy and identity call it: the same for all its keys, and for keys still to come."""
    return hashlib.blake2b(name.encode(), digest_size=8, person=b"mars-tenant-name").hexdigest()


def read_tenants(path: Path) -> tuple[Tenant, ...]:
    """
    Raises:
        ConfigError: it cannot be read, or something in it is wrong.
    """
    tree = _read_toml(path)
    for name in tree:
        if name != "tenants":
            raise ConfigError(f"{path}: {name}: no such table; allowed: [tenants.NAME]")
    entries = tree.get("tenants", {})
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(f"{path}: tenants: nobody is named; allowed: tables [tenants.NAME]")
    if len(entries) > MAX_TENANTS:
        raise ConfigError(f"{path}: tenants: {len(entries)} of them; allowed: at most {MAX_TENANTS}")
    tenants = tuple(_tenant(path, name, entry) for name, entry in entries.items())
    _check_ids(path, tenants)
    return tenants


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: too large; allowed: at most {MAX_FILE_BYTES} bytes")
        return tomllib.loads(raw.decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # tomllib's message names line and column, and quotes at most one character.
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def _tenant(path: Path, name: str, raw: Any) -> Tenant:
    where = f"{path}: tenants.{name}"
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: tenants: a name that is not allowed; allowed: up to 64 of letters, digits, '.', '_', "
            "'-', beginning with a letter or digit"
        ) from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: not a table; allowed: [tenants.{name}] with {', '.join(FIELDS)}")
    for field in raw:
        if field not in FIELDS:
            raise ConfigError(f"{where}.{field}: no such field{did_you_mean(field, FIELDS)}")
    try:
        entry = msgspec.convert(raw, TenantEntry)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$")
        raise ConfigError(f"{where}{at.rstrip('`')}: {message}") from error
    if entry.burst_tokens is not None and entry.tokens_per_s is None:
        raise ConfigError(f"{where}.burst_tokens: is of no meaning without tokens_per_s")
    return Tenant(
        name,
        tuple(_record(where, number, text) for number, text in enumerate(entry.keys)),
        TenantLimits(
            tenant_id(name),
            weight=entry.weight,
            max_open_turns=entry.max_open_turns,
            max_sessions=entry.max_sessions,
            tokens_per_s=entry.tokens_per_s,
            burst_tokens=entry.burst_tokens,
        ),
        None if entry.models is None else frozenset(entry.models),
        _seconds(where, entry.expires),
    )


def _record(where: str, number: int, text: str) -> KeyRecord:
    record = read_record(text)
    if record is None:
        raise ConfigError(
            f"{where}.keys[{number}]: not the record of a key; allowed: a line that "
            "`marsproxy tenant-key NAME` prints, never a key itself"
        )
    return record


def _seconds(where: str, expires: object) -> float | None:
    """Of a date without a time, the end of that day in UTC."""
    match expires:
        case None:
            return None
        case datetime():
            moment = expires if expires.tzinfo is not None else expires.replace(tzinfo=UTC)
        case date():
            moment = datetime.combine(expires, time.max, UTC)
        case _:
            raise ConfigError(
                f"{where}.expires: not a date; allowed: 2030-12-31 or 2030-12-31T12:00:00Z, without quotes"
            )
    return moment.timestamp()


def _check_ids(path: Path, tenants: tuple[Tenant, ...]) -> None:
    owners: dict[str, str] = {}
    for tenant in tenants:
        for number, key in enumerate(tenant.keys):
            if key.id in owners:
                raise ConfigError(
                    f"{path}: tenants.{tenant.name}.keys[{number}]: {owners[key.id]} has a key with this id; "
                    "allowed: each key once, so make another"
                )
            owners[key.id] = tenant.name
