"""Bodies of requests in the shape of OpenAI's API, checked field by field, and the errors that answer bad ones."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from chinchilla_jax.inference.sampling import TOP, Sampling

MOST_CHOICES, MOST_STOPS, LONGEST_STOP, DEEPEST, MOST = 16, 16, 256, 32, 2**31 - 1
KINDS = {401: "authentication_error", 429: "rate_limit_error"}
# How a request may end without its text.
FAILURES = {
    "full": (429, "the queue is full; try again"),
    "large": (400, "more choices than this server holds at a time; ask for fewer prompts or a smaller n"),
    "loading": (503, "the model is loading"),
    "draining": (503, "the server is shutting down"),
    "failed": (500, "the engine failed; see the server's log"),
    "late": (504, "the answer took more than ten minutes"),
    "gone": (499, "the client did not wait for the answer"),
}
# Fields that would change the answer and do not, with the values that ask for nothing.
UNSUPPORTED = {"suffix": (), "functions": (), "modalities": (["text"],), "audio": (), "prediction": (),
               "min_tokens": (), "tool_choice": ("none", "auto")}  # fmt: skip
# Settings of `Sampling`: default, least and largest value, type. A top_k of -1 is another way to say all.
SAMPLING = {
    "temperature": (1.0, 0, 2, float),
    "top_k": (0, -1, MOST, int),
    "top_p": (1.0, 0, 1, float),
    "min_p": (0.0, 0, 1, float),
    "repetition_penalty": (1.0, 0.01, 10, float),
    "presence_penalty": (0.0, -2, 2, float),
    "frequency_penalty": (0.0, -2, 2, float),
}


class ApiError(Exception):
    """An answer that is an error: HTTP status, message, and the field that caused it."""

    def __init__(self, status: int, message: str, *, param=None, code=None):
        super().__init__(message)
        kind = KINDS.get(status, "invalid_request_error" if status < 499 else "server_error")
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def bad(name: str, message: str, code: str | None = None) -> ApiError:
    """A field that cannot be taken."""
    return ApiError(400, f"Field '{name}': {message}", param=name, code=code)


def failure(why: str) -> ApiError:
    """A new error for each request: one that is raised again and again would keep every frame it passed through."""
    return ApiError(*FAILURES[why])


def failed(error: ApiError) -> JSONResponse:
    """The answer that an error is."""
    return JSONResponse(error.body, error.status, {"retry-after": "1"} if error.status in (429, 503) else {})


def written(error: ApiError) -> bytes:
    """The same as it goes over the wire, after which the connection closes."""
    response, status = failed(error), HTTPStatus(error.status)
    lines = [b": ".join(pair) for pair in (*response.raw_headers, (b"connection", b"close"))]
    return b"\r\n".join([f"HTTP/1.1 {status} {status.phrase}".encode(), *lines, b"", response.body])


@dataclass(frozen=True)
class Ask:
    """A request that can be served: prompts as ids, and how to continue each `n` times."""

    prompts: list[list[int]]
    n: int
    new: int | None
    how: Sampling
    seed: int
    stops: tuple[str, ...] = ()
    stream: bool = False
    usage: bool = False
    logprobs: int | None = None
    echo: bool = False
    ignore_eos: bool = False
    bias: dict[int, float] = field(default_factory=dict)


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object without NaN, infinities and deep nesting; fields that are null are left out."""

    def refuse(name: str):
        raise ValueError(f"{name} is no JSON")

    try:
        found = json.loads(body, parse_constant=refuse)
        deep = isinstance(found, (dict, list)) and _depth(found) > DEEPEST
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is no JSON: {str(error)[:200]}") from error
    if deep:
        raise ApiError(400, f"the body is nested deeper than {DEEPEST} levels")
    if not isinstance(found, dict):
        raise ApiError(400, "the body must be a JSON object")
    return _given(found)


def _depth(value: dict | list) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(one) for one in inner if isinstance(one, (dict, list))), default=0)


def _given(fields: dict) -> dict:
    return {name: value for name, value in fields.items() if value is not None}


def number(body: dict, name: str, default: Any, low: float, high: float, kind: type = int) -> Any:
    """A number within its limits."""
    value = body.get(name)
    if value is None:
        return default
    if type(value) not in (int, kind):
        raise bad(name, f"expected {'a whole' if kind is int else 'a'} number")
    if not low <= value <= high:
        raise bad(name, f"Value must be between {low} <= value <= {high}, but got {str(value)[:40]}")
    return kind(value)


def flag(body: dict, name: str) -> bool:
    """true or false."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise bad(name, "expected true or false")
    return value


def text(value: Any, name: str) -> str:
    """A string that UTF-8 can hold."""
    if not isinstance(value, str):
        raise bad(name, "expected a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise bad(name, "the text has a lone surrogate") from error
    return value


def _object(body: dict, name: str) -> dict:
    value = body.get(name, {})
    if not isinstance(value, dict):
        raise bad(name, "expected an object")
    return _given(value)


def common(body: dict, vocabulary: int) -> dict[str, Any]:
    """What completions and chats share, as arguments of `Ask`."""
    tools = () if body.get("tool_choice") != "none" else (body.get("tools"),)
    for name, harmless in {**UNSUPPORTED, "tools": tools}.items():
        if body.get(name) and body[name] not in harmless:
            raise bad(name, "not supported by this server", "unsupported_parameter")
    if _object(body, "response_format").get("type", "text") != "text":
        raise bad("response_format", "only plain text is supported", "unsupported_parameter")
    n = number(body, "n", 1, 1, MOST_CHOICES)
    if number(body, "best_of", n, 1, MOST_CHOICES) != n:
        raise bad("best_of", "must equal n", "unsupported_parameter")
    how = {name: number(body, name, *limits) for name, limits in SAMPLING.items()}
    seed = number(body, "seed", secrets.randbits(32), -(2**63), 2**63 - 1)
    return {
        "n": n,
        "how": Sampling(**{**how, "top_k": max(0, how["top_k"]), "top_p": max(1e-9, how["top_p"])}),
        "seed": seed % 2**32,
        "stops": _stops(body),
        "stream": flag(body, "stream"),
        "usage": flag(_object(body, "stream_options"), "include_usage"),
        "ignore_eos": flag(body, "ignore_eos"),
        "bias": _bias(body, vocabulary),
    }


def _stops(body: dict) -> tuple[str, ...]:
    given = body.get("stop", [])
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise bad("stop", f"expected a text or a list of at most {MOST_STOPS}")
    if not all(0 < len(text(stop, "stop")) <= LONGEST_STOP for stop in stops):
        raise bad("stop", f"each must have 1 to {LONGEST_STOP} characters")
    return tuple(stops)


def _bias(body: dict, vocabulary: int) -> dict[int, float]:
    given = _object(body, "logit_bias")
    if len(given) > 1024:
        raise bad("logit_bias", "expected at most 1024 ids")
    for name in given:
        if not (name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < vocabulary):
            raise bad("logit_bias", f"{name[:40]!r} is no id of this vocabulary")
    return {int(name): number({"logit_bias": value}, "logit_bias", 0.0, -100, 100, float)
            for name, value in given.items()}  # fmt: skip


def completion(body: dict, encode: Callable[[str], list[int]], vocabulary: int) -> Ask:
    """A body of /v1/completions."""
    prompt = body.get("prompt", "")
    prompts = prompt if isinstance(prompt, list) and not all(isinstance(p, int) for p in prompt) else [prompt]
    shared = common(body, vocabulary)
    if not prompts or len(prompts) * shared["n"] > MOST_CHOICES:
        raise bad("prompt", f"prompts times n must lie in [1, {MOST_CHOICES}]")
    ids, new = [_ids(one, encode, vocabulary) for one in prompts], number(body, "max_tokens", 16, 0, MOST)
    more = {"logprobs": number(body, "logprobs", None, 0, 5), "echo": flag(body, "echo")}
    return Ask(ids, new=new, **more, **shared)


def _ids(prompt: Any, encode: Callable[[str], list[int]], vocabulary: int) -> list[int]:
    if isinstance(prompt, str):
        return encode(text(prompt, "prompt"))
    if not prompt or not isinstance(prompt, list) or not all(type(i) is int for i in prompt):
        raise bad("prompt", "expected a text, ids, or a list of texts or of ids")
    if not all(0 <= i < vocabulary for i in prompt):
        raise bad("prompt", f"ids must lie in [0, {vocabulary})")
    return prompt


def messages(body: dict) -> list[tuple[str, str]]:
    """(role, content) of every message of a chat."""
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise bad("messages", "expected a list of messages")
    found = []
    for one in given:
        role = one.get("role") if isinstance(one, dict) else None
        if role not in ("system", "developer", "user", "assistant"):
            raise bad("messages", "each needs a role: system, developer, user or assistant")
        if one.get("tool_calls") or one.get("function_call"):
            raise bad("messages", "calls of tools are not supported by this server", "unsupported_parameter")
        content = "" if one.get("content") is None else one["content"]
        if isinstance(content, list):
            if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
                raise bad("messages", "only parts of type text are supported", "unsupported_parameter")
            content = "".join(text(part.get("text"), "messages") for part in content)
        found.append(("system" if role == "developer" else role, text(content, "messages")))
    if role == "assistant":
        raise bad("messages", "the last must not be the assistant's")
    return found


def chat(body: dict, render: Callable[[list[tuple[str, str]]], list[int]], vocabulary: int) -> Ask:
    """A body of /v1/chat/completions."""
    new = number(body, "max_completion_tokens", number(body, "max_tokens", None, 1, MOST), 1, MOST)
    top, wanted = number(body, "top_logprobs", 0, 0, TOP), flag(body, "logprobs")
    if "top_logprobs" in body and not wanted:
        raise bad("top_logprobs", "needs logprobs to be true")
    shared = common(body, vocabulary)
    return Ask([render(messages(body))], new=new, logprobs=top if wanted else None, **shared)
