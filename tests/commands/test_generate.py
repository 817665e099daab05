"""The generate command as a user types it."""

import json

import pytest

from chinchilla_jax.commands import generate
from chinchilla_jax.data.tokenizer import Tokenizer
from chinchilla_jax.inference.engine import Engine
from tests import runs

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture
def write(whole_run):
    """write(words, **settings): the texts that the model makes."""

    def texts(*words: str, **settings) -> list[str]:
        report = runs.ask("generate", *words, **{"run-dir": whole_run, "max-new-tokens": 20, **settings})
        assert report["step"] == 20
        return [found["text"] for found in report["completions"]]

    return texts


def test_greedy_has_one_answer(write):
    one = write("--prompt", "the sea", temperature=0)
    assert one == write("--prompt", "the sea", temperature=0, seed=5) and one != [""]


def test_a_seed_has_one_answer(write):
    one = write("--prompt", "the sea", seed=3)
    assert one == write("--prompt", "the sea", seed=3) != write("--prompt", "the sea", seed=4)


def test_neighbours_change_nothing(write):
    """What a row draws depends on the seed and the row's number."""
    prompts = ["the sea", "", "风 吹 过 the old songs over cold stone"]
    together = write(*(word for prompt in prompts for word in ("--prompt", prompt)), seed=7)
    for row, prompt in enumerate(prompts):
        among = ["wind"] * row + [prompt]
        assert write(*(word for other in among for word in ("--prompt", other)), seed=7)[row] == together[row]


def test_rows_of_neighbouring_seeds_differ(write):
    first, second = write("--prompt", "the sea", samples=2, seed=0)
    assert len({first, second, *write("--prompt", "the sea", samples=2, seed=1)}) == 4
    assert len({generate.row_seed(seed, row) for seed in range(50) for row in range(50)}) > 2490


def test_samples_are_as_many_texts_of_a_prompt(write):
    texts = write("--prompt", "the", "--prompt", "old", samples=2, seed=1)
    assert len(texts) == 4 and len(set(texts)) == 4
    assert texts[:2] == write("--prompt", "the", samples=2, seed=1)


def test_pieces_of_a_stream_join_to_the_whole(whole_run, write, capsys):
    [text] = write("--prompt", "bright water", seed=2)
    settings = {"run-dir": whole_run, "max-new-tokens": 20, "seed": 2}
    code, said = runs.call("generate", "--prompt", "bright water", **settings)
    assert code == 0 and f"bright water{text}\n" in said
    assert "exceed the 16 that the model is meant for" in said


def test_at_most_so_many_tokens(write, whole_run):
    [text] = write("--prompt", "the sea", temperature=0, **{"max-new-tokens": 3})
    [longer] = write("--prompt", "the sea", temperature=0)
    assert longer.startswith(text.rstrip("�")) and len(Tokenizer(whole_run / "tokenizer.model").encode(text)) <= 3 + 1


@pytest.mark.parametrize("source", ["causal", "bidirectional"])
def test_a_prompt_is_read_as_the_run_was_trained(copy, source, monkeypatch):
    settings = json.loads((copy / "config.json").read_text())
    settings["task"]["source"] = source
    (copy / "config.json").write_text(json.dumps(settings))
    read = []
    monkeypatch.setattr(
        Engine, "stream", lambda self, weights, ids, new, rows, blocks, lookup: read.append(blocks) or []
    )
    runs.ask("generate", "--prompt", "the sea", **{"run-dir": copy})
    assert read == [None] if source == "causal" else set(read[0][0]) == {1}


def test_a_prompt_from_a_file(write, tmp_path):
    (tmp_path / "prompt.txt").write_text("the 海", encoding="utf-8")
    assert write(**{"prompt-file": tmp_path / "prompt.txt"}) == write("--prompt", "the 海")


@pytest.mark.parametrize("flags", [("--adapter", "runs/tuned"), ("--lookup",), ("--samples", "2")])
def test_a_chat_refuses_what_it_would_not_do(whole_run, flags):
    code, said = runs.call("generate", "--chat", *flags, **{"run-dir": whole_run})
    assert code == 78 and "--chat gives one answer" in said


def test_a_chat_for_programs_says_what_it_was_given(whole_run):
    code, said = runs.call("generate", "--chat", "--json", **{"run-dir": whole_run})
    assert code == 78 and "give --prompt" in said


@pytest.mark.parametrize("flags", [("--samples", "2"), ("--prompt", "the", "--prompt", "sea")])
def test_guesses_for_several_texts_are_refused(whole_run, flags):
    code, said = runs.call("generate", "--lookup", *flags, **{"run-dir": whole_run})
    assert code == 78 and "--lookup guesses for a text that is alone" in said


def test_a_chat_ends_with_its_input(whole_run, monkeypatch):
    lines = iter(["the sea", "old songs"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines, None) or (_ for _ in ()).throw(EOFError))
    report = runs.ask("generate", "--interactive", **{"run-dir": whole_run, "max-new-tokens": 4})
    assert [found["prompt"] for found in report["completions"]] == ["the sea", "old songs"]


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_what_follows_a_chat_begins_a_line(end, monkeypatch, capsys):
    def typed(prompt):
        print(prompt, end="")
        raise end

    monkeypatch.setattr("builtins.input", typed)
    assert generate.chat(None) == [] and capsys.readouterr().out == "\n> \n"


def test_a_chat_outlives_a_line_that_is_no_text(whole_run, monkeypatch, capsys):
    lines = iter(["the sea", "caf\udce9", "old " * 600_000, "old songs"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines, None) or (_ for _ in ()).throw(EOFError))
    code, said = runs.call("generate", "--interactive", **{"run-dir": whole_run, "max-new-tokens": 2})
    assert code == 0 and said.count("error: ") == 2 and "lone surrogate" in said and "old songs" in said


@pytest.mark.parametrize(
    "flags, hint",
    [
        ({"prompt-file": "no-such-file.txt"}, "no-such-file.txt"),
        ({"prompt-file": "."}, "--prompt-file"),
        ({"prompt": "\udcff"}, "lone surrogate"),
        ({"max-new-tokens": 0}, "--max-new-tokens"),
        ({"max-new-tokens": "many"}, "--max-new-tokens"),
        ({"max-new-tokens": 1_000_001}, "1,000,000"),
        ({"max-new-tokens": 1_000_000, "prompt": "the sea"}, "1,000,000"),
        ({"samples": 0}, "--samples"),
        ({"seed": -1}, "--seed"),
        ({"temperature": -1}, "--temperature"),
        ({"top-k": -1}, "--top-k"),
        ({"top-k": 3_000_000_000}, "--top-k"),
        ({"top-p": 0}, "--top-p"),
        ({"top-p": 1.5}, "--top-p"),
        ({"temperature": "nan"}, "--temperature"),
        ({"temperature": "inf"}, "--temperature"),
        ({"temperature": "1e300"}, "--temperature"),
        ({"train.steps": 5}, "no setting of this command"),
    ],
)
def test_mistakes_are_one_line(flags, hint, whole_run):
    code, said = runs.call("generate", **{"run-dir": whole_run, **flags})
    assert code == 78 and said.count("error:") == 1 and hint in said and "Traceback" not in said


def test_a_prompt_file_that_is_no_text(whole_run, tmp_path):
    (tmp_path / "prompt").write_bytes(b"\xff\xfe\x00")
    code, said = runs.call("generate", **{"run-dir": whole_run, "prompt-file": tmp_path / "prompt"})
    assert code == 78 and said.count("\n") == 1
