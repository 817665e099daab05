"""Bodies of requests and answers in the shapes of OpenAI's API, checked field by field."""

import json
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chinchilla_jax.errors import UserError
from chinchilla_jax.inference.sampling import TOP, Sampling

MOST_CHOICES, MOST_STOPS, LONGEST_STOP, DEEPEST = 16, 16, 256, 32


class ApiError(Exception):
    """An answer that is an error: HTTP status, message, and the field that caused it."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error", param=None, code=None):
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def bad(name: str, message: str, code: str | None = None) -> ApiError:
    """A field that cannot be taken."""
    return ApiError(400, f"Field '{name}': {message}", param=name, code=code)


def busy() -> ApiError:
    """What a request is told for which there is no place."""
    return ApiError(429, "the queue is full; try again", kind="rate_limit_error")


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
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is no JSON: {str(error)[:200]}") from error
    if not isinstance(found, dict):
        raise ApiError(400, "the body must be a JSON object")
    if _depth(found) > DEEPEST:
        raise ApiError(400, f"the body is nested deeper than {DEEPEST} levels")
    return {name: value for name, value in found.items() if value is not None}


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        depth += 1
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return depth


def number(body: dict, name: str, default: Any, low: float, high: float, kind: type = int) -> Any:
    """A number within its limits."""
    value = body.get(name, default)
    if value is default:
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole or (kind is float and isinstance(value, float) and math.isfinite(value))):
        raise bad(name, f"expected {'a whole number' if kind is int else 'a finite number'}")
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


def common(body: dict, vocabulary: int) -> dict[str, Any]:
    """What completions and chats share, as arguments of `Ask`."""
    for name in ("suffix", "tools", "functions", "modalities", "audio", "prediction"):
        given = body.get(name)
        if given and not (name == "tools" and body.get("tool_choice") == "none") and given != ["text"]:
            raise bad(name, "not supported by this server", "unsupported_parameter")
    shape = body.get("response_format", {})
    if not isinstance(shape, dict) or shape.get("type", "text") != "text":
        raise bad("response_format", "only plain text is supported", "unsupported_parameter")
    options = body.get("stream_options", {})
    if not isinstance(options, dict):
        raise bad("stream_options", "expected an object")
    seed = number(body, "seed", None, -(2**63), 2**63 - 1)
    n = number(body, "n", 1, 1, MOST_CHOICES)
    if number(body, "best_of", n, 1, MOST_CHOICES) != n:
        raise bad("best_of", "must equal n", "unsupported_parameter")
    try:
        how = Sampling(
            number(body, "temperature", 1.0, 0, 2, float),
            max(0, number(body, "top_k", 0, -1, 2**31 - 1)),  # -1 is another way to say all
            number(body, "top_p", 1.0, 1e-9, 1, float),
            number(body, "min_p", 0.0, 0, 1, float),
            number(body, "repetition_penalty", 1.0, 0.01, 10, float),
            number(body, "presence_penalty", 0.0, -2, 2, float),
            number(body, "frequency_penalty", 0.0, -2, 2, float),
        )
    except UserError as error:
        raise ApiError(400, str(error)) from error
    return {
        "n": n,
        "how": how,
        "seed": secrets.randbits(32) if seed is None else seed % 2**32,
        "stops": _stops(body),
        "stream": flag(body, "stream"),
        "usage": flag({k: v for k, v in options.items() if v is not None}, "include_usage"),
        "ignore_eos": flag(body, "ignore_eos"),
        "bias": _bias(body, vocabulary),
    }


def _stops(body: dict) -> tuple[str, ...]:
    given = body.get("stop", [])
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise bad("stop", f"expected a text or a list of at most {MOST_STOPS}")
    for stop in stops:
        if not 0 < len(text(stop, "stop")) <= LONGEST_STOP:
            raise bad("stop", f"each must have 1 to {LONGEST_STOP} characters")
    return tuple(stops)


def _bias(body: dict, vocabulary: int) -> dict[int, float]:
    given, found = body.get("logit_bias", {}), {}
    if not isinstance(given, dict) or len(given) > 1024:
        raise bad("logit_bias", "expected an object of at most 1024 ids")
    for name, value in given.items():
        if not (name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < vocabulary):
            raise bad("logit_bias", f"{name[:40]!r} is no id of this vocabulary")
        found[int(name)] = number({"logit_bias": value}, "logit_bias", 0.0, -100, 100, float)
    return found


def completion(body: dict, encode: Callable[[str], list[int]], vocabulary: int) -> Ask:
    """A body of /v1/completions."""
    prompt = body.get("prompt", "")
    prompts = prompt if isinstance(prompt, list) and not all(isinstance(p, int) for p in prompt) else [prompt]
    shared = common(body, vocabulary)
    if not prompts or len(prompts) * shared["n"] > MOST_CHOICES:
        raise bad("prompt", f"prompts times n must lie in [1, {MOST_CHOICES}]")
    ids = [_ids(one, encode, vocabulary) for one in prompts]
    return Ask(
        ids,
        new=number(body, "max_tokens", 16, 0, 2**31 - 1),
        logprobs=number(body, "logprobs", None, 0, 5),
        echo=flag(body, "echo"),
        **shared,
    )


def _ids(prompt: Any, encode: Callable[[str], list[int]], vocabulary: int) -> list[int]:
    if isinstance(prompt, str):
        return encode(text(prompt, "prompt"))
    whole = isinstance(prompt, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in prompt)
    if not whole or not prompt:
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
        content = one.get("content") or ""
        if isinstance(content, list):
            if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
                raise bad("messages", "only parts of type text are supported", "unsupported_parameter")
            content = "".join(text(part.get("text"), "messages") for part in content)
        found.append(("system" if role == "developer" else role, text(content, "messages")))
    if found[-1][0] == "assistant":
        raise bad("messages", "the last must not be the assistant's")
    return found


def chat(body: dict, render: Callable[[list[tuple[str, str]]], list[int]], vocabulary: int) -> Ask:
    """A body of /v1/chat/completions."""
    new = number(body, "max_completion_tokens", number(body, "max_tokens", None, 1, 2**31 - 1), 1, 2**31 - 1)
    top = number(body, "top_logprobs", None, 0, TOP)
    wanted = flag(body, "logprobs")
    if top is not None and not wanted:
        raise bad("top_logprobs", "needs logprobs to be true")
    shared = common(body, vocabulary)
    return Ask([render(messages(body))], new=new, logprobs=(top or 0) if wanted else None, **shared)


def usage(prompt: int, made: int, cached: int) -> dict[str, Any]:
    """Counts of tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
