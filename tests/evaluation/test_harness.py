"""lm-evaluation-harness on a run, offline: its figures against sums by hand."""

import json
import math

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm-eval is an extra: make env EXTRA=lm-eval")

from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation import harness
from tests import runs


@pytest.fixture(scope="module")
def model(loaded):
    return harness.Harness(loaded)


def asked(kind: str, *args):
    return [Instance(kind, {}, one, i) for i, one in enumerate(args)]


def test_log_likelihoods_are_of_the_last_tokens_of_the_whole_string(model, log_p):
    """An empty context follows the separator; spaces at a context's end belong to the continuation."""
    requests = [("the sea", " and the wind"), ("", "the sea"), ("the sea ", "and the"), ("old " * 30, "stone")]
    found = model.loglikelihood(asked("loglikelihood", *requests))
    for (context, continuation), (total, greedy) in zip(requests, found):
        bare = context.rstrip()
        ids = model.tok.encode(context + continuation)
        known = model.tok.encode(bare) if bare else [model.tok.separator]
        told = ids[len(known) :] if bare else ids
        window = [*known, *told][-(model.max_length + 1) :]
        rows = log_p(window[:-1])[-len(told) :]
        assert total == pytest.approx(rows[np.arange(len(told)), told].sum(), abs=1e-4)
        assert greedy == bool((rows.argmax(-1) == told).all())


def test_rolling_counts_every_token_once(model, log_p):
    """Two windows and a half, each behind the last token of the one before."""
    text = "the cold wind carries old songs over bright stone and sea " * 4
    ids, size, expected = model.tok.encode(text), model.max_length, 0.0
    assert 2 * size < len(ids)
    for at in range(0, len(ids), size):
        told = ids[at : at + size]
        # The last window goes back as far as the model reads, and scores what is new.
        before = ids[max(0, at + len(told) - size - 1) : at] or [model.tok.separator]
        rows = log_p([*before, *told][:-1])[-len(told) :]
        expected += rows[np.arange(len(told)), told].sum()
    [found] = model.loglikelihood_rolling(asked("loglikelihood_rolling", (text,)))
    assert found == pytest.approx(expected, abs=1e-3)


def test_generation_ends_before_a_stop_and_keeps_the_order(model):
    greedy = {"until": [], "max_gen_toks": 8}
    prompts = ["the", "the sea and the wind", "stone"]
    whole = model.generate_until(asked("generate_until", *((prompt, greedy) for prompt in prompts)))
    assert whole == [model.generate_until(asked("generate_until", (prompt, greedy)))[0] for prompt in prompts]
    stop = whole[1][2:4]
    cut = {"until": stop, "max_gen_toks": 8, "do_sample": False, "temperature": 0.0}
    assert model.generate_until(asked("generate_until", (prompts[1], cut))) == [whole[1][: whole[1].index(stop)]]
    drawn = {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 1.5}
    several = model.generate_until(asked("generate_until", *[("the", drawn)] * 4))
    assert len(set(several)) > 1


def test_unknown_settings_are_named():
    with pytest.raises(UserError, match="num_beams"):
        harness.generation({"num_beams": 4})
    stops, new, how = harness.generation({"until": "\n", "max_new_tokens": 5, "temperature": 0.7})
    assert (stops, new, how.temperature) == (["\n"], 5, 0.7)


def test_the_command_with_our_tasks_and_a_file(copy, tmp_path):
    """Accuracy by counting, bits a byte by the rolling sums; and a task of a file with its data beside it."""
    rows = [{"text": "the sea and the wind"}, {"text": "old songs"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bits = (harness.ours()["shakespeare_bits"].read_text()).replace("shakespeare_bits", "rows")
    (tmp_path / "mine.yaml").write_text(bits)
    tasks = ["--lm-eval", "shakespeare_words", str(tmp_path / "mine.yaml"), "--limit", "8"]
    report = runs.ask("evaluate", *tasks, **{"run-dir": copy})["lm_eval"]
    assert json.loads((copy / "lm_eval.json").read_text())["lm_eval"] == report
    assert report["shakespeare_words"]["documents"] == 8
    accuracy = report["shakespeare_words"]["acc"]
    assert accuracy * 8 == round(accuracy * 8)
    sd = math.sqrt(accuracy * (1 - accuracy) / 7)
    assert report["shakespeare_words"]["acc_stderr"] == pytest.approx(sd, abs=1e-9)
    from chinchilla_jax.training.load import load

    model = harness.Harness(load(runs.config(copy), str(copy)))
    nats = model.loglikelihood_rolling(asked("loglikelihood_rolling", *((row["text"],) for row in rows)))
    size = sum(len(row["text"].encode()) for row in rows)
    assert report["rows"]["bits_per_byte"] == pytest.approx(-sum(nats) / math.log(2) / size, rel=1e-6)


def test_a_task_that_reads_answers_in_two_ways_has_both_figures():
    ways = {"strict": [1.0, 0.0, 0.0], "loose": [1.0, 1.0, 0.0]}
    samples = [{"doc_id": i, "filter": way, "em": v} for way, each in ways.items() for i, v in enumerate(each)]
    row = {"alias": "x", "em,strict": 1 / 3, "em_stderr,strict": "N/A", "em,loose": 2 / 3, "other,loose": 5}
    found = harness.figures(row, samples)
    assert (found["documents"], found["em,strict"], found["em,loose"], found["other"]) == (3, 1 / 3, 2 / 3, 5.0)
    assert found["em,strict_stderr"] == found["em,loose_stderr"] == pytest.approx(1 / 3)
    assert harness.figures({"acc,none": 0.5}, [])["acc"] == 0.5


def test_files_lie_beside_their_task(tmp_path):
    for told, found in (("a.jsonl", "{}/a.jsonl"), ("[a, b]", ["{}/a", "{}/b"]), ("{test: [a]}", {"test": ["{}/a"]})):
        (tmp_path / "t.yaml").write_text(f"task: t\ndataset_kwargs:\n  data_files: {told}\n")
        made = harness.specification(str(tmp_path / "t.yaml"))["dataset_kwargs"]["data_files"]
        assert json.dumps(made) == json.dumps(found).replace("{}/", f"{tmp_path}/")
    (tmp_path / "t.yaml").write_text("task: t\ndataset_kwargs:\n")
    assert harness.specification(str(tmp_path / "t.yaml"))["task"] == "t"


@pytest.mark.parametrize("text", ["task: [", "- a", "task: t\nbogus: 1", "task: t\nprocess_docs: !function lost.f"])
def test_a_task_that_cannot_be_read_is_one_line(tmp_path, text):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(UserError, match=r"(?s)t.yaml could not be read .*; correct its YAML file"):
        harness.run(None, [str(tmp_path / "t.yaml")], None, None)


@pytest.mark.parametrize("words, hint", [(("--limit", "3"), "--lm-eval"), (("--lm-eval", "lost.yaml"), "lost.jsonl"),
                                         (("--lm-eval", "shakespeare_bits", "--limit", "0"), "--limit 0"),
                                         (("--lm-eval", "no_task"), "shakespeare_words"),
                                         (("--lm-eval", "shakespeare_bits", "--attack"), "--attack")])  # fmt: skip
def test_what_is_refused(copy, words, hint, tmp_path, monkeypatch):
    """A file without its data, and a name that nobody knows (lm-eval's own are not indexed here: 13 seconds)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(harness, "TaskManager", lambda include_defaults: TaskManager(include_defaults=False))
    lost = harness.ours()["shakespeare_bits"].read_text().replace("shakespeare_bits.jsonl", "lost.jsonl")
    (tmp_path / "lost.yaml").write_text(lost)
    code, said = runs.call("evaluate", *words, **{"run-dir": copy})
    assert code == 78 and hint in said.splitlines()[-1]
