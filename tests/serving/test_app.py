"""The server over real HTTP."""

import dataclasses
import json
import socket
import threading
import time

import pytest

from tests.slots import Gate, until

GREEDY = {"model": "tiny", "prompt": "the sea", "max_tokens": 12, "temperature": 0}


def idle(client) -> bool:
    return not any(client.service.scheduler.running) and not client.service.scheduler.waiting


def test_an_answer_whole_and_in_parts_with_usage(client, tokenizer):
    whole = client.json("/v1/completions", GREEDY)
    [choice] = whole["choices"]
    assert whole["object"] == "text_completion" and whole["model"] == "tiny" and whole["id"].startswith("cmpl-")
    assert choice["index"] == 0 and choice["finish_reason"] in ("stop", "length") and choice["logprobs"] is None
    prompt = len(tokenizer.prompt("the sea"))
    assert whole["usage"]["prompt_tokens"] == prompt
    assert whole["usage"]["total_tokens"] == prompt + whole["usage"]["completion_tokens"]
    *parts, last = client.stream("/v1/completions", {**GREEDY, "stream_options": {"include_usage": True}})
    assert "".join(part["choices"][0]["text"] for part in parts) == choice["text"]
    assert [part["choices"][0]["finish_reason"] for part in parts][-1] == choice["finish_reason"]
    assert all(part["choices"][0]["finish_reason"] is None for part in parts[:-1])
    assert last["choices"] == [] and last["usage"] == whole["usage"]


def test_log_probabilities_with_echo_as_lm_eval_reads_them(client, tokenizer):
    """The prompt's tokens and one more; the best token's number is the same float in both lists."""
    ids = tokenizer.prompt("the sea and the wind")
    body = {"prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    [choice] = client.json("/v1/completions", body)["choices"]
    found = choice["logprobs"]
    assert len(found["tokens"]) == len(found["token_logprobs"]) == len(found["text_offset"]) == len(ids) + 1
    assert found["token_logprobs"][0] is None and all(p <= 0 for p in found["token_logprobs"][1:])
    assert choice["text"].startswith("the sea and the wind")
    for name, logprob, top in list(zip(found["tokens"], found["token_logprobs"], found["top_logprobs"]))[1:]:
        assert top[name] == logprob <= max(top.values()) and 1 <= len(top) <= 2
    assert max(found["top_logprobs"][-1].values()) == found["token_logprobs"][-1], "greedy takes the best"


def test_offsets_of_log_probabilities_are_those_of_characters(client, tokenizer):
    """Pieces that look like the names of others, and a character of several bytes, which the last of them completes."""
    text = "a <b> 海c"
    ids = tokenizer.encode(text)
    [choice] = client.json("/v1/completions", {"prompt": ids, "echo": True, "logprobs": 0, "max_tokens": 1})["choices"]
    told = [len(tokenizer.decode(ids[:n]).rstrip("\ufffd")) for n in range(len(ids) + 1)]
    assert choice["logprobs"]["text_offset"] == told


def test_several_prompts_and_choices_have_their_places(client):
    body = {"prompt": ["the sea", "wind"], "n": 2, "max_tokens": 4, "seed": 5}
    choices = client.json("/v1/completions", body)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert choices == client.json("/v1/completions", body)["choices"], "a seed decides the text"
    assert len({choice["text"] for choice in choices}) > 1


def test_each_prompt_begins_a_text_or_goes_on_for_itself(client, tokenizer, monkeypatch):
    """With a tokenizer that puts a space before a text, which is no part of it."""
    monkeypatch.setattr(tokenizer, "prefixes_space", True)
    word = next(id for id, piece in enumerate(tokenizer.pieces) if piece.startswith(b" ") and len(piece) > 1)
    body = {"prompt": ["", "the"], "max_tokens": 1, "temperature": 0, "logit_bias": {word: 100}}
    said = tokenizer.pieces[word].decode()
    assert [choice["text"] for choice in client.json("/v1/completions", body)["choices"]] == [said[1:], said]


def test_a_prompt_that_ends_inside_a_character_is_echoed_with_the_rest_of_it(client, tokenizer):
    *ids, last = tokenizer.encode("海")
    body = {"prompt": ids, "echo": True, "max_tokens": 1, "temperature": 0, "logit_bias": {last: 100}}
    assert client.json("/v1/completions", body)["choices"][0]["text"] == "海"


def test_a_stop_string_ends_a_text(client):
    [whole] = client.json("/v1/completions", {**GREEDY, "max_tokens": 40, "ignore_eos": True})["choices"]
    stop = whole["text"][5:8]
    [cut] = client.json("/v1/completions", {**GREEDY, "max_tokens": 40, "stop": [stop]})["choices"]
    assert cut["text"] == whole["text"][: whole["text"].index(stop)] and cut["finish_reason"] == "stop"
    until(lambda: idle(client))


def test_a_chat(client):
    body = {"messages": [{"role": "user", "content": "the sea"}], "max_tokens": 5, "temperature": 0,
            "logprobs": True, "top_logprobs": 2}  # fmt: skip
    whole = client.json("/v1/chat/completions", body)
    message = whole["choices"][0]["message"]
    assert message["role"] == "assistant" and whole["object"] == "chat.completion"
    content = whole["choices"][0]["logprobs"]["content"]
    assert all(len(one["top_logprobs"]) == 2 and one["bytes"] is not None for one in content)
    parts = client.stream("/v1/chat/completions", body)
    assert parts[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == message["content"]
    other = {**body, "model": "other"}
    assert client.json("/v1/chat/completions", other, status=400)["error"]["code"] == "unsupported"


def test_models_are_chosen_by_name(client):
    listed = [one["id"] for one in client.json("/v1/models")["data"]]
    assert listed == ["tiny", "other"] and client.json("/v1/models/other")["id"] == "other"
    found = {name: client.json("/v1/completions", {**GREEDY, "model": name}) for name in listed}
    assert found["tiny"]["choices"] != found["other"]["choices"] and found["other"]["model"] == "other"
    unnamed = {name: value for name, value in GREEDY.items() if name != "model"}
    assert client.json("/v1/completions", unnamed)["choices"] == found["tiny"]["choices"]


def test_a_soft_prompt_stands_before_every_prompt_and_is_not_seen(client):
    """Ids of the vocabulary in its place: as if the client had written them, but for counts and log-probabilities."""
    service, soft = client.service, (7, 9, 11)
    service.models = [*service.models, dataclasses.replace(service.models[0], name="soft", soft=soft)]
    client.service.scheduler.models["soft"] = client.service.scheduler.models["tiny"]
    body = {"prompt": [5, 6, 8], "max_tokens": 6, "temperature": 0, "logprobs": 1, "echo": True}
    whole = client.json("/v1/completions", {**body, "prompt": [*soft, 5, 6, 8]})
    found = client.json("/v1/completions", {**body, "model": "soft"})
    del client.service.scheduler.models["soft"]
    assert found["usage"]["prompt_tokens"] == 3 and whole["usage"]["prompt_tokens"] == 6
    [one], [other] = found["choices"], whole["choices"]
    assert one["logprobs"]["token_logprobs"] == [None, *other["logprobs"]["token_logprobs"][4:]]
    assert one["logprobs"]["tokens"] == other["logprobs"]["tokens"][3:]
    long = {"model": "soft", "prompt": [5] * 125}
    assert client.json("/v1/completions", long, status=400)["error"]["code"] == "context_length_exceeded"


def test_what_is_wrong_is_an_error_object(client):
    long = {"prompt": [5] * 128}
    assert client.json("/v1/completions", long, status=400)["error"]["code"] == "context_length_exceeded"
    assert client.json("/v1/completions", b"{", status=400)["error"]["type"] == "invalid_request_error"
    assert client.json("/v1/completions", {"model": "third"}, status=404)["error"]["code"] == "model_not_found"
    assert "error" in client.json("/v1/nothing", {}, status=404)
    assert "error" in client.json("/v1/completions/", {}, status=404), "not led to another path"
    assert len(client.json("/" + "y" * 2**13, status=404)["error"]["message"]) < 300
    code, headers, body = client.ask("/v1/completions")
    assert code == 405 and headers["allow"] == "POST" and b"takes POST" in body
    assert "error" in client.json("/v1/completions", b"x" * (2**20 + 1), status=413)
    assert "error" in client.json("/health", headers={"x-long": "y" * 2**14}, status=431)
    assert "error" in client.json("/health?" + "y" * 2**14, status=431)
    assert client.json("/tokenize", {"content": "the sea"}, status=400)["error"]["param"] == "prompt"
    assert client.json("/detokenize", {}, status=400)["error"]["param"] == "tokens"
    said = {"messages": [{"role": "user", "content": "the sea " * 100}]}
    assert client.json("/v1/chat/completions", said, status=400)["error"]["param"] == "messages"
    assert client.json("/v1/completions", {**GREEDY, "n": 8}, status=400)["error"]["message"].startswith("more choices")
    foreign = {"origin": "http://elsewhere.example"}
    for more in ({}, {"host": "elsewhere.example"}, {"origin": "http://["}):  # the second: its name leads to us
        asked = client.json("/v1/completions", GREEDY, status=403, headers={**foreign, **more})
        assert "--api-key-file" in asked["error"]["message"]
    own = {"origin": f"http://127.0.0.1:{client.port}"}
    assert client.json("/v1/completions", GREEDY, headers=own)["choices"]
    client.service.key = "secret"
    assert client.json("/v1/models", status=401)["error"]["code"] == "invalid_api_key"
    right = {"authorization": "bearer secret", **foreign}
    assert client.json("/v1/models", headers=right)["data"][0]["id"] == "tiny"


def test_what_is_no_http_is_an_error_object_too(client):
    """A request line that is none, a header that is too long and comes in parts; what is broken behind an answer."""
    for parts, status in (([b"nonsense\r\n\r\n"], 400), ([b"GET / HTTP/1.1\r\nx: " + b"y" * 9000] * 3, 431)):
        with socket.create_connection(("127.0.0.1", client.port), timeout=60) as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.05)
            head, _, found = connection.makefile("rb").read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status) and json.loads(found)["error"]["message"]
    with socket.create_connection(("127.0.0.1", client.port), timeout=60) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 404")
        connection.sendall(b"garbage\r\n\r\n")
        while connection.recv(2**16):
            pass
    assert client.json("/health")


def test_a_fault_of_our_own_is_an_error_object_and_counted(client, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("chinchilla_jax.serving.protocol.completion", broken)
    assert client.json("/v1/completions", GREEDY, status=500)["error"]["type"] == "server_error"
    assert client.service.metrics.requests.labels("/v1/completions", "500")._value.get() == 1


def test_a_full_queue_says_when_to_come_back(client):
    """One request too many for the room that is left, then any by its first bytes, in one part or in two."""
    scheduler = client.service.scheduler
    scheduler.engine = gate = Gate(scheduler.engine)
    running = [client.service.scheduler.room]

    def busy(n):
        body = {**GREEDY, "max_tokens": 100, "n": n, "ignore_eos": True}
        threads.append(threading.Thread(target=client.ask, args=("/v1/completions", body)))
        threads[-1].start()
        running[0] -= n
        until(lambda: all(scheduler.running) and scheduler.room == running[0])

    threads = []
    busy(6)
    answers = [client.ask("/v1/completions", {**GREEDY, "n": 5})]
    busy(1)
    answers += [client.ask("/v1/completions", {**GREEDY, "n": 5}), client.ask("/v1/chat/completions", {})]
    for parts in ([b"{}"], [], [b"{", b"}"]) * 20:
        with socket.create_connection(("127.0.0.1", client.port), timeout=60) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
            for part in parts:
                connection.sendall(part)
            head, _, found = connection.makefile("rb").read().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1" in head
            assert json.loads(found) == json.loads(answers[0][2])
    assert client.json("/health") == {"status": "ok"}
    gate.open.set()
    for code, headers, body in answers:
        assert code == 429 and headers["retry-after"] and json.loads(body)["error"]["type"] == "rate_limit_error"
    for thread in threads:
        thread.join()
    until(lambda: idle(client) and not client.admission.arriving)
    counted = client.service.metrics.requests.labels("/v1/completions", "429")
    assert counted._value.get() == 62


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_goes_away_frees_its_slot(client, streams):
    body = json.dumps({**GREEDY, "max_tokens": 120, "ignore_eos": True, "n": 6, "stream": streams}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(head + body)
        until(lambda: any(client.service.scheduler.running))
        if streams:
            connection.recv(100)
    until(lambda: idle(client))
    assert client.json("/v1/completions", GREEDY)["choices"]


def test_health_and_metrics(client):
    from prometheus_client.parser import text_string_to_metric_families

    assert client.json("/health") == {"status": "ok"}
    made = client.json("/v1/completions", GREEDY)["usage"]
    families = {f.name: f for f in text_string_to_metric_families(client.ask("/metrics")[2].decode())}
    assert families["chinchilla_prompt_tokens"].samples[0].value == made["prompt_tokens"]
    assert families["chinchilla_generation_tokens"].samples[0].value == made["completion_tokens"]
    assert families["chinchilla_requests_running"].samples[0].value == 0
    client.service.scheduler.drain()
    assert client.json("/health", status=503) == {"status": "draining"}
    assert client.json("/v1/completions", GREEDY, status=503)["error"]["type"] == "server_error"


def test_the_tokenizer_and_the_page(client, tokenizer):
    ids = client.json("/tokenize", {"prompt": "the sea", "add_special_tokens": False})["tokens"]
    assert ids == tokenizer.encode("the sea")
    assert client.json("/detokenize", {"tokens": ids}) == {"prompt": "the sea"}
    code, _, page = client.ask("/")
    assert code == 200 and b"/v1/completions" in page and b"http://" not in page and b"https://" not in page
