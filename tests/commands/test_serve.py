"""The command: what it says, how it ends, what it refuses."""

import json
import re
import signal
import socket
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.commands import serve
from chinchilla_jax.config import TaskConfig
from chinchilla_jax.errors import UserError
from tests import runs
from tests.slots import until


def test_it_serves_until_it_is_asked_to_stop(copy):
    """The address in its first lines, one answer, SIGTERM, exit code 0."""
    few = ["--slots", "2", "--capacity", "64"]  # as few programs as there may be
    process = runs.start(["-m", "chinchilla_jax", "serve", "--run-dir", str(copy), "--port", "0", *few], 1)
    try:
        lines = (re.search(r"on (http://127\.0\.0\.1:\d+)/v1", line) for line in process.stdout)
        url = next(filter(None, lines)).group(1)  # notes may stand before it

        def ready() -> bool:
            try:
                return urllib.request.urlopen(f"{url}/health", timeout=5).status == 200
            except OSError:
                return False

        until(ready, 120)
        body = json.dumps({"prompt": "the", "max_tokens": 3}).encode()
        asked = urllib.request.Request(f"{url}/v1/completions", body, {"content-type": "application/json"})
        answer = json.load(urllib.request.urlopen(asked, timeout=60))
        assert answer["model"] == copy.name and answer["usage"]["completion_tokens"] <= 3
        process.send_signal(signal.SIGTERM)
    except BaseException:
        process.kill()
        raise
    said = runs.finish(process)
    assert "Traceback" not in said


@pytest.mark.parametrize("flags, named", [({"host": "0.0.0.0"}, "--api-key-file"), ({"host": "localhost"}, "--host"),
                                          ({"slots": 0}, "--slots"), ({"name": "a\nb"}, "--name"),
                                          ({"capacity": 1}, "--capacity"),
                                          ({"api-key-file": "nowhere"}, "--api-key-file")])  # fmt: skip
def test_what_is_refused(copy, flags, named):
    code, said = runs.call("serve", **{"run-dir": copy}, **flags)
    assert code == 78 and named in said


@pytest.mark.parametrize("key", ["schlüssel".encode(), b"one\ntwo", b"one two", b"", b"schl\xfcssel"])
def test_a_key_that_no_header_holds_is_refused(copy, tmp_path, key):
    path = tmp_path / "key"
    path.write_bytes(key)
    code, said = runs.call("serve", **{"run-dir": copy, "api-key-file": path})
    assert code == 78 and f"error: {path}" in said.replace("--api-key-file ", "")


def test_it_listens_on_ipv6_and_ends_with_0_while_it_loads(copy):
    """SIGTERM while the programs are compiled: an interpreter that ended under XLA would crash."""
    process = runs.start(["-m", "chinchilla_jax", "serve", "--run-dir", str(copy), "--port", "0", "--host", "::1"], 1)
    try:
        next(line for line in process.stdout if re.search(r"on http://\[::1\]:\d+/v1", line))
        process.send_signal(signal.SIGTERM)
    except BaseException:
        process.kill()
        raise
    assert "Traceback" not in runs.finish(process)


def test_a_template_of_one_exchange_refuses_a_second_turn(copy, monkeypatch):
    """It would be written as training never saw it."""
    template = SimpleNamespace(several=False)
    renderer = SimpleNamespace(template=template, stops=frozenset(), prompt=lambda turns: [len(turns)])
    monkeypatch.setattr(serve, "_renderer", lambda run_dir, loaded: renderer)
    table = {"embed": {"table": np.zeros((3, 2))}}
    model = serve._model(SimpleNamespace(params=table, tokenizer=None, fingerprint="a", step=1), copy)
    said = [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert model.chat([("system", "s"), ("user", "a")]) == [2]
    with pytest.raises(UserError, match="no second turn"):
        model.chat(said)
    template.several = True
    assert model.chat(said) == [3]


def test_a_port_in_use_is_refused_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = runs.call("serve", **{"run-dir": tmp_path / "none", "port": taken.getsockname()[1]})
    assert code == 78 and "see --host and --port" in said


def test_a_model_that_reads_both_ways_is_refused_by_its_settings(tmp_path):
    """Those of a merged or pruned run too, which has no task.json."""
    program = SimpleNamespace(config=SimpleNamespace(task=TaskConfig(source="bidirectional")))
    with pytest.raises(UserError, match="in both directions"):
        serve._renderer(tmp_path, SimpleNamespace(program=program, tokenizer=None))
