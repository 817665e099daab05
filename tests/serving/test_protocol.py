"""Bodies that cannot be taken are errors that name the field, never anything else."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chinchilla_jax.serving import protocol
from chinchilla_jax.serving.protocol import ApiError


def encode(text: str) -> list[int]:
    return [1, *text.encode()]


BAD = {
    "temperature": [-1, 3, "1", True, [1]],
    "n": [0, 1_000_000, 1.5],
    "max_tokens": [-1, "5", 10**400],
    "logprobs": [6, -1, True],
    "stop": [5, [""], ["a"] * 17, "x" * 257],
    "prompt": [5, [5, "a"], [[]], [], [-1], [300], {"a": 1}, ["a"] * 17, "\ud800"],
    "stream": ["yes", 1],
    "logit_bias": [[1], {"x": 1}, {"-1": 1}, {"5": 101}],
    "best_of": [2],
    "suffix": ["x"],
    "tools": [[{"type": "function"}]],
    "response_format": [{"type": "json_object"}, 5],
    "min_tokens": [3],
    "tool_choice": ["required"],
    "top_p": [-0.1, 1.5],
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_field_is_named(name):
    for value in BAD[name]:
        with pytest.raises(ApiError) as caught:
            protocol.completion({"prompt": "a", name: value}, encode, 260)
        assert caught.value.status == 400 and caught.value.body["error"]["param"] == name, value


DEEP = b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}"
BODIES = [b"", b"{", b"[]", b"5", b'{"temperature": NaN}', b'{"a":' + b"[" * 100_000, b"\xff", DEEP]


@pytest.mark.parametrize("body", BODIES)
def test_a_bad_body_is_refused(body):
    with pytest.raises(ApiError) as caught:
        protocol.parse(body)
    assert caught.value.status == 400


def test_infinity_by_overflow_is_no_number():
    with pytest.raises(ApiError, match="between 0 <= value <= 2, but got inf"):
        protocol.completion(protocol.parse(b'{"prompt": "a", "temperature": 1e999}'), encode, 260)


def test_null_is_absent_and_unknown_fields_are_ignored():
    body = protocol.parse(json.dumps({"prompt": "ab", "n": None, "suffix": None, "user": "x"}).encode())
    ask = protocol.completion(body, encode, 260)
    assert (ask.prompts, ask.n, ask.new, ask.logprobs, ask.stops) == ([[1, 97, 98]], 1, 16, None, ())
    two = protocol.completion({"prompt": [[5], [6, 7]], "n": 2, "stop": "x", "top_k": -1}, encode, 260)
    assert (two.prompts, two.n, two.stops, two.how.top_k) == ([[5], [6, 7]], 2, ("x",), 0)
    harmless = {"tools": [{"type": "function"}], "tool_choice": "none", "min_tokens": 0, "modalities": ["text"]}
    nothing = protocol.completion({"prompt": "", "top_p": 0, **harmless}, encode, 260)
    assert 0 < nothing.how.top_p < 1e-6


CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
CHATS = [None, [], [{}], [{"role": "user", "content": 0}], [{"role": "user", "content": False}],
         [{"role": "assistant", "tool_calls": CALLS}, {"role": "user", "content": "x"}],
         [{"role": "tool", "content": "x"}], [{"role": "user", "content": 5}], ["x"],
         [{"role": "user", "content": [{"type": "image_url"}]}], [{"role": "assistant", "content": "x"}]]  # fmt: skip


@pytest.mark.parametrize("messages", CHATS)
def test_bad_chats_are_refused(messages):
    with pytest.raises(ApiError) as caught:
        protocol.chat({"messages": messages}, lambda said: [1], 260)
    assert caught.value.status == 400


def test_a_chat_is_rendered():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    said = [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}]
    assert protocol.messages({"messages": said}) == [("system", "s"), ("user", "ab")]
    ask = protocol.chat({"messages": said, "max_completion_tokens": 5, "max_tokens": 7}, lambda s: [1], 260)
    assert (ask.new, ask.logprobs) == (5, None)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                    max_leaves=6)  # fmt: skip
FIELDS = [*BAD, "seed", "echo", "messages", "stream_options", "top_k", "min_p", "ignore_eos", "max_completion_tokens"]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_whatever_comes_is_taken_or_refused(body):
    for read, more in ((protocol.completion, encode), (protocol.chat, lambda said: [1])):
        try:
            ask = read({k: v for k, v in body.items() if v is not None}, more, 260)
        except ApiError as error:
            assert 400 <= error.status < 500
        else:
            assert all(0 <= i < 260 for ids in ask.prompts for i in ids)
