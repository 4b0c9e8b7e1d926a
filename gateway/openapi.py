"""The OpenAPI document's share that FastAPI cannot derive itself: our structs are msgspec's.

Owns references to the schemas of ``protocol``, their examples, and the words for refusals and headers.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI

from gateway.openapi_examples import EXAMPLES
from gateway.protocol import ErrorBody, ErrorDetail

Answers = dict[int | str, dict[str, Any]]
"""``responses`` of a route."""

_REF = "#/components/schemas/{name}"
BINARY = "application/octet-stream"
TAR = "application/x-tar"

RETRY_AFTER = {"Retry-After": "Seconds to wait before the next attempt."}
LOCATION = {"Location": "Where to ask again."}

_REFUSALS = {
    400: ("A field is wrong; `param` names it.", "invalid_value"),
    401: ("No known bearer token.", "invalid_token"),
    403: (
        "Not allowed: to this Host or Origin, to this tenant, or by the host that runs commands.",
        "forbidden",
    ),
    404: ("There is no such thing of this tenant.", "session_not_found"),
    408: ("The body did not come in time.", "too_slow"),
    409: ("What is there does not allow it now; `code` says what.", "idempotency_key_reused"),
    410: ("It was there and is forgotten.", "exec_forgotten"),
    413: ("A part of the request is too large.", "too_large"),
    416: ("The file has nothing in that range; Content-Range has its size.", "range_not_satisfiable"),
    426: ("A WebSocket is needed.", "upgrade_required"),
    429: ("No room; nothing was run.", "queue_full"),
    502: ("The host answered with a fault of its own.", "host_fault"),
    503: ("Shutting down, just started, or a host does not answer.", "draining"),
    507: ("The disk of the host is full.", "no_space"),
}
_COMMON = (401, 403)
_UNUSED = {"HTTPValidationError", "ValidationError"}
"""What FastAPI would answer wrong parameters with."""


def json_body(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads one of our structs. An empty body is an empty object."""
    return {"requestBody": {"required": not _is_all_optional(kind), "content": _content(kind)}}


def raw_body(*media_types: str) -> dict[str, Any]:
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": dict.fromkeys(media_types, schema)}}


def json_answer(
    text: str, kind: type[msgspec.Struct], headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One entry of a route's ``responses``."""
    return {"description": text, "content": _content(kind), "headers": _headers(headers or {})}


def raw_answer(text: str, media_type: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"}
    return {
        "description": text,
        "content": {media_type: {"schema": schema}},
        "headers": _headers(headers or {}),
    }


def empty_answer(text: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"description": text, "headers": _headers(headers or {})}


def refusals(*statuses: int) -> Answers:
    """These, and those of all who ask without permission."""
    return {status: _refusal(status) for status in sorted({*_COMMON, *statuses})}


def add_schemas(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        components = document.setdefault("components", {})
        _, schemas = msgspec.json.schema_components([*EXAMPLES, ErrorBody], ref_template=_REF)
        own = components.get("schemas", {})
        components["schemas"] = {k: v for k, v in own.items() if k not in _UNUSED} | schemas
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}, {}]
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)  # Wrong parameters are answered 400.
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _refusal(status: int) -> dict[str, Any]:
    text, code = _REFUSALS[status]
    example = ErrorBody(
        ErrorDetail("what is wrong, and what is allowed", "invalid_request_error", None, code)
    )
    headers = _headers(RETRY_AFTER if status in (429, 503) else {})
    return {"description": text, "content": _content(ErrorBody, example), "headers": headers}


def _content(kind: type[msgspec.Struct], example: msgspec.Struct | None = None) -> dict[str, Any]:
    shown = msgspec.to_builtins(EXAMPLES[kind] if example is None else example)
    return {"application/json": {"schema": {"$ref": _REF.format(name=kind.__name__)}, "example": shown}}


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}, "required": name not in RETRY_AFTER}
        for name, text in headers.items()
    }


def _is_all_optional(kind: type[msgspec.Struct]) -> bool:
    return all(not field.required for field in msgspec.structs.fields(kind))
