"""Refusals, in the shape of OpenAI's API, each naming what it is about."""

from gateway.protocol import ErrorBody, ErrorDetail


class Refusal(Exception):
    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        """Field, header or path part that the refusal is about."""
        self.retry_after_s = retry_after_s

    def body(self) -> ErrorBody:
        return error_body(self.status, self.code, self.message, self.param)


def error_body(status: int, code: str, message: str, param: str | None = None) -> ErrorBody:
    match status:
        case 401 | 403:
            kind = "authentication_error"
        case 429:
            kind = "rate_limit_error"
        case _ if status >= 500:
            kind = "server_error"
        case _:
            kind = "invalid_request_error"
    return ErrorBody(ErrorDetail(message, kind, param, code))


def invalid(param: str, message: str) -> Refusal:
    return Refusal(400, "invalid_value", f"{param}: {message}", param=param)


def session_not_found(session_id: str) -> Refusal:
    return Refusal(
        404,
        "session_not_found",
        f"no session {session_id!r}; create it with PUT /v1/sessions/{session_id}",
        param="sid",
    )


def exec_not_found(exec_id: str) -> Refusal:
    return Refusal(
        404, "exec_not_found", f"no exec {exec_id!r}; finished ones are forgotten after a while", param="id"
    )


def draining() -> Refusal:
    return Refusal(503, "draining", "the gateway is shutting down and starts nothing new", retry_after_s=5)


def host_not_found(name: str, param: str = "host") -> Refusal:
    return Refusal(404, "host_not_found", f"no host {name!r}; GET /v1/hosts names them", param=param)


def host_lost(name: str) -> Refusal:
    message = f"host {name!r} does not answer; what runs there goes on, and this may be asked again"
    return Refusal(503, "host_lost", message, retry_after_s=5)


def adopting() -> Refusal:
    message = "the gateway has just started and still asks its hosts what they run"
    return Refusal(503, "adopting", message, retry_after_s=1)


def lease_not_found(lease_id: str) -> Refusal:
    return Refusal(
        404, "lease_not_found", f"no lease {lease_id!r}; those that are over are forgotten", param="id"
    )


def queue_full(queued: int, retry_after_s: float) -> Refusal:
    message = f"{queued} commands are waiting for a CPU slot; this one was not run"
    return Refusal(429, "queue_full", message, retry_after_s=retry_after_s)
