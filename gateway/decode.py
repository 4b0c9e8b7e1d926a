"""Reads request bodies into structs, and says what is wrong with those that are not one.

Owns the limits of reading (size, time) and the wording of what msgspec found: the field, and what is
allowed there.
"""

import asyncio
import re
import types
from enum import Enum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from starlette.requests import ClientDisconnect, Request

from gateway.errors import Refusal

_READ_TIMEOUT_S = 30.0
"""For a whole body of a few megabytes; a client slower than that is not one of ours."""

T = TypeVar("T", bound=msgspec.Struct)


async def read_body(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_READ_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise Refusal(
                        413, "too_large", f"the body is larger than {max_bytes} bytes", param="body"
                    )
    except TimeoutError as error:
        message = f"the body did not arrive within {_READ_TIMEOUT_S:g} s"
        raise Refusal(408, "too_slow", message, param="body") from error
    except ClientDisconnect as error:
        raise Refusal(400, "disconnected", "the body is incomplete", param="body") from error
    return bytes(body)


def decode(body: bytes, kind: type[T]) -> T:
    """An empty body is an empty object."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), kind) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "invalid_json", f"the body is not JSON: {error}", param="body") from error


def _explained(message: str, kind: type[msgspec.Struct]) -> Refusal:
    what, _, path = message.partition(" - at `")
    param = path.strip("`").removeprefix("$").removeprefix(".") or "body"
    if (unknown := re.search(r"unknown field `(.+)`", what)) is not None:
        struct = _type_at(kind, param)
        param = unknown[1] if param == "body" else f"{param}.{unknown[1]}"
        return _invalid(param, f"unknown field; allowed are {', '.join(struct.__struct_fields__)}")
    if what.startswith("Invalid enum value"):
        what += f"; allowed are {', '.join(map(repr, _values(_type_at(kind, param))))}"
    return _invalid(param, what)


def _invalid(param: str, message: str) -> Refusal:
    return Refusal(400, "invalid_value", f"{param}: {message}", param=param)


def _type_at(kind: type[msgspec.Struct], param: str) -> Any:
    """The type of a field by its dotted path, without None."""
    found: Any = kind
    for name in param.split(".") if param != "body" else ():
        found = get_type_hints(found)[name]
        if get_origin(found) in (Union, types.UnionType):
            found = next(t for t in get_args(found) if t is not type(None))
    return found


def _values(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    assert issubclass(kind, Enum)
    return [member.value for member in kind]
