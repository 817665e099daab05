"""`prepare` from text to store, and everything that can go wrong on the way."""

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import added_tokens, build, engines
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.data.tokenizer import Tokenizer
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.errors import UserError
from tests.data import jsons
from tests.data.conftest import story


def prepare(config, **options):
    """`build.prepare` without output, and what it said."""
    said = []
    manifest = build.prepare(config, say=said.append, show=False, **options)
    return manifest, said


@pytest.fixture
def config(corpus, tmp_path):
    return DataConfig(sources=(str(corpus),), store=str(tmp_path / "s" / "tiny"), vocab_size=400, valid_fraction=0.1)


def texts_of(split, tokenizer):
    """The documents of a stream by its index, and by its separators."""
    ends = [*split.starts[1:].tolist(), len(split.tokens) - 1]
    by_index = [tokenizer.decode(split.tokens[s + 1 : e].tolist()) for s, e in zip(split.starts.tolist(), ends)]
    return by_index


def test_the_store_holds_every_document_once(store, corpus):
    texts = {split: texts_of(getattr(store, split), store.tokenizer) for split in ("train", "valid")}
    original = [path.read_bytes().decode() for path in sorted(corpus.iterdir())]
    assert sorted(texts["train"] + texts["valid"]) == sorted(original)
    assert store.valid_text.read_text() == "".join(texts["valid"])
    for name in ("train", "valid"):
        split, counts = getattr(store, name), store.manifest["splits"][name]
        separators = np.flatnonzero(np.asarray(split.tokens) == store.tokenizer.separator)
        assert separators.tolist() == [*split.starts.tolist(), len(split.tokens) - 1]
        assert split.bytes == counts["bytes"] == sum(len(t.encode()) for t in texts[name])
        assert counts["tokens"] == len(split.tokens) and counts["documents"] == len(texts[name])
    assert 0.05 < store.valid.bytes / (store.valid.bytes + store.train.bytes) < 0.15


def test_manifest_says_what_is_there(store, corpus, made):
    manifest = store.manifest
    (source,) = manifest["sources"]
    assert source["name"] == str(corpus) and source["documents"] == 30 and source["licence"]
    assert manifest["tokenizer"] == {
        "sha256": store.tokenizer.sha256, "pieces": store.tokenizer.size, "separator": store.tokenizer.separator,
        "lossless": True,
    }  # fmt: skip
    assert set(manifest["files"]) == set(os.listdir(made.store)) - {"manifest.json"}
    assert not list(Path(made.store).parent.glob(".*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_writes_the_same_store(config, store, monkeypatch, workers):
    monkeypatch.setattr("chinchilla_jax.data.engines.SHARE", 1000)
    monkeypatch.setattr("chinchilla_jax.data.stages.job.PARTITION", 5000)
    monkeypatch.setattr("chinchilla_jax.data.files.GROUP", 4000)
    manifest, _ = prepare(replace(config, workers=workers))
    assert manifest["files"] == store.manifest["files"]
    assert TokenStore.open(config.store).fingerprint == store.fingerprint


def test_a_finished_store_is_used_again(config):
    prepare(config)
    before = Path(config.store, "manifest.json").stat().st_mtime_ns
    manifest, said = prepare(replace(config, workers=2))
    assert "complete" in said[0] and manifest["splits"]
    assert Path(config.store, "manifest.json").stat().st_mtime_ns == before


def test_other_settings_are_refused_and_force_replaces(config):
    prepare(config)
    with pytest.raises(UserError, match=r"data\.vocab_size 400, now 300.*--data\.store or pass --force"):
        prepare(replace(config, vocab_size=300))
    assert prepare(replace(config, vocab_size=300), force=True)[0]["tokenizer"]["pieces"] == 300
    assert os.listdir(Path(config.store).parent) == ["tiny"]


def test_changed_sources_are_noticed(tmp_path):
    (tmp_path / "a.txt").write_text(story(1))
    config = DataConfig(sources=(str(tmp_path / "a.txt"),), store=str(tmp_path / "s"), vocab_size=300)
    prepare(config)
    (tmp_path / "a.txt").write_text(story(2))
    with pytest.raises(UserError, match=r"a\.txt changed since"):
        prepare(config)


def test_a_folder_that_is_no_store_is_left_alone(config, tmp_path):
    Path(config.store).mkdir(parents=True)
    Path(config.store, "thesis.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UserError, match="is there and is no token store"):
            prepare(config, force=force)
    assert Path(config.store, "thesis.txt").read_text() == "mine"


def test_one_document_is_held_out_at_its_end(tmp_path):
    text = "\n\n".join(story(n, 5) for n in range(60))
    (tmp_path / "book.txt").write_text(text)
    prepare(
        DataConfig(sources=(str(tmp_path / "book.txt"),), store=str(tmp_path / "s"), vocab_size=300, valid_fraction=0.1)
    )
    opened = TokenStore.open(tmp_path / "s")
    (train,), (valid,) = (texts_of(s, opened.tokenizer) for s in (opened.train, opened.valid))
    assert train + valid == text and train.endswith("\n\n")
    assert 0.1 <= len(valid) / len(text) < 0.2


def test_mixed_sources_duplicates_and_empty_documents(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "zh.txt").write_text("海风吹过石头,人们在睡觉。\n" * 30)
    (tmp_path / "d" / "empty.txt").write_text(" \n\n")
    rows = [story(n % 8) for n in range(10)] + [""]
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress("\n".join(json.dumps({"text": t}) for t in rows).encode()))
    sources = (str(tmp_path / "d"), str(tmp_path / "rows.jsonl.gz"))
    config = DataConfig(sources=sources, store=str(tmp_path / "s"), vocab_size=400, valid_fraction=0.2)
    manifest, _ = prepare(config)
    assert [s["documents"] for s in manifest["sources"]] == [1, 8]
    assert (manifest["duplicates"], manifest["empty"]) == (2, 2)
    kept, _ = prepare(replace(config, store=str(tmp_path / "all"), deduplicate=False))
    assert kept["duplicates"] == 0 and sum(s["documents"] for s in kept["splits"].values()) == 11


def test_the_tokenizer_can_be_trained_on_a_sample(config, monkeypatch):
    monkeypatch.setattr("chinchilla_jax.data.stages.sampling.BLOCK", 50)
    manifest, said = prepare(replace(config, tokenizer_sentences=300, vocab_size=300))
    assert manifest["tokenizer"]["lossless"] and "0.0 MB" in said[0]
    assert texts_of(TokenStore.open(config.store).train, Tokenizer(f"{config.store}/tokenizer.model"))


def test_an_existing_tokenizer_is_copied(config, made, tmp_path, monkeypatch):
    model, read, extended = f"{made.store}/tokenizer.model", [], added_tokens.extended
    monkeypatch.setattr(added_tokens, "extended", lambda path: read.append(path) or extended(path))
    _, said = prepare(replace(config, tokenizer=model))
    assert read == [model, model], "to know it, and to copy it"
    assert Path(config.store, "tokenizer.model").read_bytes() == Path(model).read_bytes() and not said
    with pytest.raises(UserError, match="not a SentencePiece model"):
        prepare(replace(config, tokenizer=__file__, store=str(tmp_path / "other")))
    assert os.listdir(tmp_path) == ["s"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_with_a_tokenizer_json_prepares(config, corpus, tmp_path, workers, monkeypatch):
    """Documents between bos and eos, as the model of such a tokenizer reads them; the files come along."""
    config = replace(config, vocab_size=DataConfig().vocab_size)
    monkeypatch.setattr("chinchilla_jax.data.engines.SHARE", 1000)
    folder = jsons.write(tmp_path / "hf", jsons.fallback(prefix=True), eos_token="</s>", chat_template="{{ x }}")
    manifest, said = prepare(replace(config, tokenizer=str(folder), workers=workers))
    store = TokenStore.open(config.store)
    assert not said and {"tokenizer.json", "tokenizer_config.json"} < {path.name for path in store.path.iterdir()}
    assert manifest["tokenizer"]["sha256"] == open_tokenizer(folder).sha256 and manifest["tokenizer"]["separator"] == 1
    assert set(texts_of(store.train, store.tokenizer)) < {path.read_text() for path in corpus.iterdir()}
    tokens = np.asarray(store.train.tokens)
    assert np.array_equal(np.flatnonzero(tokens == 1), [*store.train.starts, len(tokens) - 1])
    assert (tokens[store.train.starts[1:].astype(int) - 1] == 2).all() and tokens[-2] == 2
    assert prepare(replace(config, tokenizer=str(folder)))[1] == [
        f"{config.store} is complete and has these settings; nothing to do"
    ]


def test_fewer_pieces_than_asked_are_said(config):
    manifest, said = prepare(replace(config, vocab_size=32000))
    pieces = manifest["tokenizer"]["pieces"]
    assert pieces < 32000 and f"the text supports {pieces:,} pieces, fewer than --data.vocab-size 32,000" in said


@pytest.mark.parametrize(
    ("content", "message"), [("", "no text in"), ("x", "too few"), ("  \n", "no text in"), ("海", "too few")]
)
def test_too_little_text(tmp_path, content, message):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        prepare(DataConfig(sources=(str(tmp_path / "a.txt"),), store=str(tmp_path / "s"), vocab_size=300))
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_nothing(config, monkeypatch):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (100, 8000, 20_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        try:
            with pytest.raises(UserError, match="the disk is full"):
                prepare(config)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert os.listdir(Path(config.store).parent) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 10}))
    with pytest.raises(UserError, match="free some space"):
        prepare(config)
    assert os.listdir(Path(config.store).parent) == []


RUN = "from chinchilla_jax.__main__ import main; import sys; sys.exit(main(sys.argv[1:]))"
# The second half of the partitions is never encoded, and a run that goes on is not to read a second time.
SLOW = """
import time, chinchilla_jax.data.stages.encoding as e
engines, run = __import__("chinchilla_jax.data.engines", fromlist=["x"]), e.run
engines.STAGES["encode"] = lambda job, task: time.sleep(60) if task["partition"] > 1 else run(job, task)
"""
SMALL = """
import chinchilla_jax.data.files as f, chinchilla_jax.data.stages.job as j
f.GROUP, j.PARTITION = 4000, 5000
"""


def start(code: str, config: DataConfig) -> subprocess.Popen:
    """`prepare` as a process of its own."""
    flags = ["--data.sources", *config.sources, "--data.store", config.store, "--data.vocab-size", "400"]
    return subprocess.Popen(
        [sys.executable, "-c", code, "prepare", *flags, "--data.valid-fraction", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(path: Path) -> None:
    """Until `path` is there."""
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_gone_on_with_and_two_do_not_meet(config, store, monkeypatch, number):
    parent = Path(config.store).parent
    folder = parent / ".tiny.preparing"
    process = start(SMALL + SLOW + RUN, config)
    wait_for(folder / "encode" / "0001.json")
    with pytest.raises(UserError, match="another process is preparing"):
        prepare(config)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode != 0 and os.listdir(parent) == [".tiny.preparing"]
    (folder / "store" / "train.bin.1.part").write_text("half of it")
    monkeypatch.setattr("chinchilla_jax.data.files.GROUP", 4000)
    monkeypatch.setattr("chinchilla_jax.data.stages.job.PARTITION", 5000)
    monkeypatch.setitem(engines.STAGES, "read", lambda job, task: pytest.fail("read again"))
    manifest, said = prepare(config)
    assert manifest["files"] == store.manifest["files"] and "going on with" in said[0]
    assert os.listdir(parent) == ["tiny"]


def test_what_another_run_left_is_not_gone_on_with(config, store):
    folder = Path(config.store).parent / ".tiny.preparing"
    (folder / "read").mkdir(parents=True)
    (folder / "key").write_text("another")
    (folder / "read" / "000000.json").write_text("{}")
    assert prepare(config)[0]["files"] == store.manifest["files"]


def test_memory_does_not_follow_the_corpus(tmp_path, made):
    """Resident memory of 2 MB and of 14 MB of text, in processes of their own.

    Of the kernel's two peaks VmHWM is the program's own; ru_maxrss begins with that of the process that started it.
    """
    peaks = []
    for megabytes in (2, 14):
        with open(tmp_path / "rows.jsonl", "w") as file:
            for number in range(megabytes * 20):
                file.write(json.dumps({"text": f"{number} " + "the sea wind carries old songs " * 1650}) + "\n")
        flags = ["--data.sources", str(tmp_path / "rows.jsonl"), "--data.store", str(tmp_path / f"s{megabytes}")]
        flags += ["--data.tokenizer", f"{made.store}/tokenizer.model", "--data.workers", "1"]
        code = "import chinchilla_jax.data.stages.job as j; j.PARTITION = 1 << 19; "
        code += RUN.replace("sys.exit(", "code = ").rstrip(")") + ")"
        code += "; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); sys.exit(code)"
        done = subprocess.run(
            [sys.executable, "-c", code, "prepare", *flags], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 7, peaks
