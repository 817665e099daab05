"""The local engine: results in order and workers that die; Apache Beam: the same bytes, and mistakes on one line.

Beam itself is optional; without it the pipeline runs on a stand-in for the few calls that are made of it.
"""

import importlib
import json
import random
import sys
import types
from dataclasses import replace

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.config.corpus import NearConfig, QualityConfig
from chinchilla_jax.data import build, engines, fs
from chinchilla_jax.data.engines import Beam
from chinchilla_jax.data.stages import job
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import UserError
from tests.data import test_pipeline
from tests.data.dying import die
from tests.data.filters.test_minhash import changed
from tests.data.test_remote import URL


@pytest.fixture
def root(tmp_path):
    job.save(str(tmp_path), {"config": {}, "store": "", "bits": 0, "segment": 1 << 20})
    return str(tmp_path)


def merge_tasks(root, count):
    """Tasks of `merge` that have their results already but for the last."""
    tasks = [{"name": f"{n:04}", "partition": n, "sources": 1} for n in range(count)]
    for n in range(count - 1):
        fs.write(f"{root}/merge/{n:04}.json", json.dumps({"n": n}).encode())
    return tasks


def test_results_come_in_order_and_what_is_there_is_not_done_again(root):
    tasks = merge_tasks(root, 4)
    done = []
    with pytest.raises(FileNotFoundError):  # the last has no segments to merge
        engines.Local(1, 0).map(root, "1", "merge", tasks, done.append)
    assert [task["partition"] for task in done] == [0, 1, 2]
    assert engines.Local(1, 0).map(root, "1", "merge", tasks[:3], done.append) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_worker_that_dies_is_tried_again_and_then_one_line(root, monkeypatch):
    monkeypatch.setattr(engines, "SHARE", 1)
    tasks, made = merge_tasks(root, 3), []
    start = engines.Local._pass
    monkeypatch.setattr(engines.Local, "_pass", lambda self, *a: made.append(1) or start(self, *a))
    monkeypatch.setattr(engines, "run_task", die)
    with pytest.raises(UserError, match=r"died 3 times.*lower --data\.workers"):
        engines.Local(2, 100).map(root, "1", "merge", tasks, lambda task: None)
    assert len(made) == 3


class Step:
    """A transform of the stand-in: a function from all elements to all elements."""

    def __init__(self, work):
        self.work = work

    def __rrshift__(self, label):
        return self

    def __ror__(self, elements):
        return self.work(elements)


class Pipeline:
    """The stand-in's pipeline: what is piped into it is done at once."""

    def __init__(self, options):
        self.options = options

    def __enter__(self):
        return []

    def __exit__(self, *error):
        return None


def shuffled(elements):
    """In another order, and some of them twice, as a retry does."""
    return random.Random(0).sample([*elements, *elements[:2]], len(elements) + len(elements[:2]))


@pytest.fixture(params=["stand-in", "beam"])
def options(request):
    """Options of a runner, with the stand-in in place of Beam or with Beam itself."""
    if request.param == "beam":
        pytest.importorskip("apache_beam")
        return "runner=DirectRunner direct_num_workers=1"
    return request.getfixturevalue("stand_in")


@pytest.fixture
def stand_in(monkeypatch):
    """Options of a runner of the stand-in."""
    beam = types.ModuleType("apache_beam")
    beam.Pipeline, beam.Reshuffle = Pipeline, lambda: Step(shuffled)
    beam.Create = lambda values: Step(lambda _: list(values))
    beam.Map = lambda work, *more: Step(lambda elements: [work(element, *more) for element in elements])
    beam.options = types.SimpleNamespace(pipeline_options=types.SimpleNamespace(PipelineOptions=list))
    monkeypatch.setitem(sys.modules, "apache_beam", beam)
    return "runner=DirectRunner"


def corpora() -> dict[str, list[str]]:
    """English-like, Chinese and code, each with planted near-duplicates and equal documents."""
    chinese = ["".join(chr(0x4E00 + random.Random(n).randrange(500)) for _ in range(1)) for n in range(500)]
    draw = random.Random(1)
    texts = {
        "english": [test_pipeline.text(n) for n in range(60)],
        "chinese": ["".join(draw.choices(chinese, k=150)) + "\n" for _ in range(60)],
        "code": [
            f"def f{n}(x):\n" + "".join(f"    y{draw.randrange(99)} = x + {k}\n" for k in range(30)) for n in range(60)
        ],
    }
    return {
        name: [*own, *(changed(t, 0.02, n) for n, t in enumerate(own[:9])), *own[:3]] for name, own in texts.items()
    }


@pytest.mark.parametrize("name", ["english", "chinese", "code"])
@pytest.mark.parametrize("shards", [1, 7])
def test_the_same_bytes_as_the_local_engine(options, tmp_path, monkeypatch, name, shards):
    monkeypatch.setattr(job, "PARTITION", 20_000)
    source = test_pipeline.write(tmp_path / "text", corpora()[name], shards)
    config = {"near": NearConfig("drop"), "quality": QualityConfig(on=name == "english")}
    local, _ = test_pipeline.prepare(tmp_path / "a", [source], **config)
    beam, _ = test_pipeline.prepare(tmp_path / "b", [source], engine="beam", beam_options=options, **config)
    assert beam == local
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_a_remote_store_is_prepared_beside_itself(stand_in, cloud, tmp_path, monkeypatch):
    """No worker needs this machine's disk; a run that was stopped goes on there, and nothing but the store is left."""
    source = test_pipeline.write(tmp_path / "text", corpora()["english"], 2)
    config = DataConfig(sources=(source,), store=str(tmp_path / "here"), vocab_size=300, valid_fraction=0.1)
    local = build.prepare(config, say=lambda line: None, show=False)
    there = replace(config, store=URL, engine="beam", beam_options=stand_in)
    with monkeypatch.context() as patch:
        patch.setitem(engines.STAGES, "encode", lambda job, task: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            build.prepare(there, say=lambda line: None, show=False)
    assert any(".preparing/merge/" in path for path in cloud.store)
    monkeypatch.setitem(engines.STAGES, "read", lambda job, task: pytest.fail("read again"))
    assert build.prepare(there, say=lambda line: None, show=False)["files"] == local["files"]
    assert {path.rpartition("/")[2] for path in cloud.store} == {*local["files"], "manifest.json"}
    opened = TokenStore.open(URL)
    assert (opened.train.tokens[:] == TokenStore.open(config.store).train.tokens).all()


def test_a_mistake_in_a_worker_is_one_line(options, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
    config = DataConfig(
        sources=(str(tmp_path / "t.jsonl"),), store=str(tmp_path / "s"), engine="beam", beam_options=options
    )
    with pytest.raises(UserError, match=r"t\.jsonl:2: no field 'text'"):
        build.prepare(config, say=lambda line: None, show=False)
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]


def test_a_failure_left_by_a_worker_is_raised(options, tmp_path):
    root = str(tmp_path)
    job.save(root, {"config": {}, "store": "", "bits": 0, "segment": 1})
    fs.write(f"{root}/merge/0.error", json.dumps("the disk is full").encode())
    fs.write(f"{root}/merge/1.json", b"{}")
    engine = Beam(options)
    with pytest.raises(UserError, match=r"Apache Beam ended in stage merge|disk is full"):
        engine.map(root, "1", "merge", [{"name": "0", "partition": 0, "sources": 1}], lambda task: None)
    assert engine.map(root, "1", "merge", [{"name": "1"}], lambda task: None) == [{}]


def test_options_are_words_of_a_shell(stand_in):
    with pytest.raises(UserError, match=r"--data\.beam-options runner='Direct: No closing quotation"):
        Beam("runner='Direct")


def test_without_beam_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match="make env EXTRA=beam"):
        Beam("")
    assert importlib.util.find_spec("chinchilla_jax.data.engines")
