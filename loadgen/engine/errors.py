"""Refusals in the words and the shape of vLLM 0.32: ``{"error": {message, type, param, code}}``."""

import msgspec


class ApiError(Exception):
    """The request is refused; ``type`` is vLLM's name of the reason."""

    def __init__(self, status: int, message: str, error_type: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.param = param

    def body(self) -> bytes:
        error = {
            "message": str(self),
            "type": self.error_type,
            "param": self.param,
            "code": self.status,
        }
        return msgspec.json.encode({"error": error})


def invalid(message: str, param: str | None = None) -> ApiError:
    """A value that vLLM's own checks refuse."""
    return ApiError(400, message, "BadRequestError", param)


def malformed(message: str, param: str | None = None) -> ApiError:
    """A body that does not parse or has the wrong shape."""
    return ApiError(400, f"1 validation error:\n  {message}", "Bad Request", param)


def unknown_model(name: str) -> ApiError:
    return ApiError(404, f"The model `{name}` does not exist.", "NotFoundError", "model")


def no_such_route() -> ApiError:
    return ApiError(404, "Not Found", "Not Found")


def method_not_allowed() -> ApiError:
    return ApiError(405, "Method Not Allowed", "Method Not Allowed")


def body_too_large(limit_bytes: int) -> ApiError:
    message = f"The request body is larger than {limit_bytes} bytes."
    return ApiError(413, message, "Request Entity Too Large")


def engine_stopped() -> ApiError:
    return ApiError(503, "The engine is shutting down.", "ServiceUnavailableError")


def prompt_too_long(max_model_len: int, prompt_tokens: int) -> ApiError:
    return invalid(
        f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains "
        f"{prompt_tokens} input tokens, which exceeds this limit even without any output tokens. "
        "Please reduce the length of the input prompt.",
        "input_tokens",
    )


def context_too_long(max_model_len: int, prompt_tokens: int, max_tokens: int) -> ApiError:
    """The wording of the releases that refuse instead of cutting the output short."""
    return invalid(
        f"This model's maximum context length is {max_model_len} tokens. However, you requested "
        f"{max_tokens} output tokens and your prompt contains at least {prompt_tokens} input tokens, for "
        f"a total of at least {prompt_tokens + max_tokens} tokens. Please reduce the length of the input "
        "prompt or the number of requested output tokens.",
        "input_tokens",
    )
