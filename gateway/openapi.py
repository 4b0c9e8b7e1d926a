"""The OpenAPI document's share that FastAPI cannot derive itself: our structs are msgspec's.

Owns references to the schemas of ``protocol`` and the schemas' place in the document.
"""

from typing import Any

import msgspec
from fastapi import FastAPI

from gateway.protocol import (
    ErrorBody,
    ExecRequest,
    ExecStatus,
    HostList,
    SessionRequest,
    SessionStatus,
)

_TYPES = (SessionRequest, SessionStatus, ExecRequest, ExecStatus, HostList, ErrorBody)
_REF = "#/components/schemas/{name}"


def json_body(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads one of our structs."""
    return {"requestBody": {"required": True, "content": _content(kind)}}


def json_answer(text: str, kind: type[msgspec.Struct] | None) -> dict[str, Any]:
    """One entry of a route's ``responses``."""
    return {"description": text} if kind is None else {"description": text, "content": _content(kind)}


def add_schemas(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, components = msgspec.json.schema_components(_TYPES, ref_template=_REF)
        document.setdefault("components", {}).setdefault("schemas", {}).update(components)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _content(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=kind.__name__)}}}
