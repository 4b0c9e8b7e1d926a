"""The HTTP face of the patch: a vLLM endpoint plugin with the paths of ``protocol`` under ``/v1/mars``.

Owns reading requests, their bounds, and the form of answers and errors (vLLM's own, after OpenAI's).
What the schedulers do with it is theirs; the way to them is ``engine_ranks``. It must not import vllm:
vLLM loads it by its entry point and hands over what it needs. Every path is below ``/v1``, which is what
``--api-key`` guards. The routes are Starlette's, without pydantic, since a proxy reads them many times a
second in the process that streams everybody's tokens.
"""

import re
from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from backend_patch.engine_ranks import EngineClient, EngineRanks, EngineUnreachable
from backend_patch.protocol import (
    BATCH_PATH,
    CAPABILITIES_PATH,
    HEADROOM_PATH,
    MAX_BATCH,
    MAX_NAME_CHARS,
    SESSIONS_PATH,
    KvOp,
    KvRequest,
    LeaseMode,
    SessionsQuery,
)

MAX_BODY_BYTES = 1 << 20
"""A KiB for each operation of the largest batch, of which names take up to 512 characters."""
ALLOWED = {"op": KvOp, "mode": LeaseMode}


class BadRequest(Exception):
    """What was sent is not understood. ``param`` names the member that is at fault."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


class MarsEndpoint:
    """``vllm.plugins.endpoint_plugins.interface.EndpointPlugin``, of the name that VLLM_PLUGINS lists."""

    name = "mars"
    required_tasks: tuple[str, ...] | None = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.router.routes.extend(
            [
                Route(HEADROOM_PATH, answering(headroom), methods=["GET"]),
                Route(CAPABILITIES_PATH, answering(capabilities), methods=["GET"]),
                Route(SESSIONS_PATH, answering(sessions), methods=["GET"]),
                # A session's name may have slashes in it.
                Route(SESSIONS_PATH + "/{session:path}/kv", answering(session_kv), methods=["POST"]),
                Route(BATCH_PATH, answering(batch_kv), methods=["POST"]),
            ]
        )

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """There is an engine: ``required_tasks`` leaves out the servers that have none."""
        assert engine_client is not None
        state.mars = EngineRanks(engine_client)


async def headroom(ranks: EngineRanks, request: Request) -> Any:
    return await ranks.headroom(read_after(request.query_params.get("after", "")))


async def capabilities(ranks: EngineRanks, request: Request) -> Any:
    return await ranks.capabilities()


async def sessions(ranks: EngineRanks, request: Request) -> Any:
    params = request.query_params
    resident = params.get("resident", "0")
    if resident not in ("0", "1"):
        raise BadRequest("resident: 0 or 1", "resident")
    return await ranks.sessions(SessionsQuery(params.get("session"), with_resident=resident == "1"))


async def session_kv(ranks: EngineRanks, request: Request) -> Any:
    operation = msgspec.json.decode(await read_body(request), type=KvRequest)
    operation = msgspec.structs.replace(operation, session=request.path_params["session"])
    check_operation(operation, "")
    return (await ranks.apply([operation]))[0]


async def batch_kv(ranks: EngineRanks, request: Request) -> Any:
    operations = msgspec.json.decode(await read_body(request), type=list[KvRequest])
    if len(operations) > MAX_BATCH:
        raise BadRequest(f"{len(operations)} operations; at most {MAX_BATCH} go in one batch")
    for index, operation in enumerate(operations):
        check_operation(operation, f"[{index}].")
    return await ranks.apply(operations) if operations else []


Answer = Callable[[EngineRanks, Request], Awaitable[Any]]


def answering(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    """A route of it: what it returns as JSON, what it raises as an error."""

    async def respond(request: Request) -> Response:
        try:
            content = await answer(request.app.state.mars, request)
        except BadRequest as exc:
            return error(str(exc), exc.status, exc.param)
        except msgspec.ValidationError as exc:
            return invalid(exc)
        except msgspec.DecodeError as exc:
            return error(f"the body is not JSON: {exc}", 400)
        except EngineUnreachable as exc:
            return error(str(exc), 503)
        return Response(msgspec.json.encode(content), media_type="application/json")

    return respond


def read_after(text: str) -> dict[int, int]:
    """``RANK:SEQ,...``"""
    if not text:
        return {}
    pairs = [re.fullmatch(r"(\d{1,9}):(\d{1,18})", pair) for pair in text.split(",")]
    if None in pairs:
        raise BadRequest("after: expected RANK:SEQ,RANK:SEQ,... with whole numbers", "after")
    return {int(pair[1]): int(pair[2]) for pair in pairs if pair}


async def read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest(f"the body has more than {MAX_BODY_BYTES} bytes", status=413)
    return bytes(body)


def check_operation(operation: KvRequest, where: str) -> None:
    """What the types do not say."""
    if not 0 < len(operation.session) <= MAX_NAME_CHARS:
        raise BadRequest(f"{where}session: 1 to {MAX_NAME_CHARS} characters", f"{where}session")
    if len(operation.branch or "") > MAX_NAME_CHARS:
        raise BadRequest(f"{where}branch: at most {MAX_NAME_CHARS} characters", f"{where}branch")
    if operation.ttl_ms is not None and operation.ttl_ms <= 0:
        raise BadRequest(f"{where}ttl_ms: more than 0, or left out for the longest allowed", f"{where}ttl_ms")


def invalid(exc: msgspec.ValidationError) -> Response:
    """Its message ends in the member's path: ``... - at `$[3].op` ``."""
    message, _, path = str(exc).partition(" - at `$")
    param = path.rstrip("`").removeprefix(".")
    allowed = ALLOWED.get(param.rpartition(".")[2])
    hint = f"; allowed: {', '.join(allowed)}" if allowed else ""
    return error(f"{param or 'body'}: {message}{hint}", 400, param or None)


def error(message: str, status: int, param: str | None = None) -> Response:
    kind = "BadRequestError" if status < 500 else "ServiceUnavailableError"
    content = {"error": {"message": message, "type": kind, "param": param, "code": status}}
    return Response(msgspec.json.encode(content), status, media_type="application/json")
