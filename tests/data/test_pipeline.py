"""`prepare` with filters, near-duplicates, decontamination and weights, end to end."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.config.corpus import NearConfig, QualityConfig, RepetitionConfig
from chinchilla_jax.data import account, build
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import UserError
from tests.data.conftest import story
from tests.data.filters.test_minhash import changed
from tests.data.test_build import texts_of

VOCABULARY = [f"{a}{b}" for a in ("sea", "wind", "stone", "lamp", "river", "cloud") for b in "abcdefghijklmnopqrst"]


def text(seed: int, words: int = 100) -> str:
    """A document that breaks no rule of quality, of words that others have too."""
    return "the of that " + " ".join(random.Random(seed).sample(VOCABULARY, words)) + " and with\n"


def write(path: Path, texts: list[str], shards: int = 1) -> str:
    """A folder of .jsonl files, the texts dealt out to them in turns."""
    path.mkdir()
    for shard in range(shards):
        lines = (json.dumps({"text": t}) + "\n" for t in texts[shard::shards])
        (path / f"{shard}.jsonl").write_text("".join(lines))
    return str(path)


def prepare(folder: Path, sources: list[str], **settings) -> tuple[dict, TokenStore]:
    """The manifest and the opened store."""
    config = DataConfig(sources=tuple(sources), store=str(folder), vocab_size=300, valid_fraction=0.1, **settings)
    return build.prepare(config, say=lambda line: None, show=False), TokenStore.open(folder)


def documents(store: TokenStore) -> dict[str, list[str]]:
    """The texts of both splits."""
    return {name: texts_of(getattr(store, name), store.tokenizer) for name in ("train", "valid")}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """60 documents, ten of them in four versions, with junk, repetition and an exam among them."""
    texts = [text(n) for n in range(60)]
    copies = [changed(t, 0.04, n + k) for n, t in enumerate(texts[:10]) for k in (1, 2, 3)]
    junk = ["too short\n", "# " * 80 + "the and\n", ("the same line and that\n" * 20)]
    exam = text(999, 30)
    leaked = text(1000) + exam.upper()
    return texts, copies, junk, exam, leaked


FILTERED = {"quality": QualityConfig(on=True), "repetition": RepetitionConfig(on=True), "near": NearConfig("drop")}


@pytest.fixture(scope="module")
def filtered(planted, tmp_path_factory):
    """A store of all of it in one file, and its manifest."""
    folder = tmp_path_factory.mktemp("filtered")
    texts, copies, junk, exam, leaked = planted
    (folder / "exam.txt").write_text(exam)
    source = write(folder / "text", [*texts, *copies, *junk, leaked])
    return folder, *prepare(folder / "s", [source], decontaminate=(str(folder / "exam.txt"),), **FILTERED)


def test_each_stage_leaves_out_what_it_should(planted, filtered):
    texts, copies, _, _, leaked = planted
    _, manifest, store = filtered
    kept = [t for split in documents(store).values() for t in split]
    assert len(kept) == 60 and set(texts[10:]) < set(kept) and leaked not in kept
    assert all(len({*texts[n : n + 1], *copies[3 * n : 3 * n + 3]} & set(kept)) == 1 for n in range(10))
    stages = {stage["stage"]: stage for stage in manifest["stages"]}
    assert list(stages) == ["gopher", "decontaminate", "duplicates", "near"]
    gopher = stages["gopher"]
    assert gopher["in"][0] == 94 and gopher["out"][0] == 91 and gopher["rules"]["words"]["documents"] == 1
    assert gopher["rules"]["words"]["examples"][0][1:] == [2, "too short\n"]
    assert gopher["rules"]["duplicate_lines"]["documents"] == 1 and gopher["settings"]["quality"]["min_words"] == 50
    assert stages["decontaminate"]["rules"]["shared_run_of_words"]["documents"] == 1
    assert (stages["near"]["clusters"], stages["near"]["documents"], stages["near"]["dropped"]) == (10, 40, 30)
    near = stages["near"]["rules"]["near_duplicate"]
    assert near["documents"] == 30 and len(near["examples"]) == 3
    for _, alike, head in near["examples"]:
        assert 0.5 < alike < 1 and any(t.startswith(head) for t in set(texts[:10] + copies) - set(kept))
    assert manifest["sources"][0]["near_duplicates"] == 30 and manifest["sources"][0]["filtered"] == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_the_store_depends_neither_on_order_nor_on_shards_nor_on_workers(
    planted, filtered, tmp_path, monkeypatch, workers
):
    texts, copies, junk, _, leaked = planted
    folder, manifest, _ = filtered
    for name, size in (("engines.SHARE", 1000), ("stages.job.PARTITION", 20_000), ("files.GROUP", 9000)):
        monkeypatch.setattr(f"chinchilla_jax.data.{name}", size)
    everything = [*texts, *copies, *junk, leaked]
    random.Random(workers).shuffle(everything)
    source = write(tmp_path / "text", everything, shards=7)
    exam = (str(folder / "exam.txt"),)
    again, _ = prepare(tmp_path / "s", [source], workers=workers, decontaminate=exam, **FILTERED)
    assert again["files"] == manifest["files"] and again["stages"] == manifest["stages"]


def test_a_mixture_does_not_depend_on_partitions_either(tmp_path, monkeypatch):
    """The sample that trains the tokenizer is the same, in the same order."""
    sources = [write(tmp_path / "a", [text(n) for n in range(40)]), write(tmp_path / "b", ["海风吹过石头。" * 30] * 2)]
    monkeypatch.setattr("chinchilla_jax.data.stages.sampling.BLOCK", 100)
    first, _ = prepare(tmp_path / "one", sources, tokenizer_sentences=60)
    monkeypatch.setattr("chinchilla_jax.data.stages.job.PARTITION", 3000)
    second, _ = prepare(tmp_path / "many", sources, tokenizer_sentences=60)
    assert first["files"] == second["files"]


def test_a_group_stays_on_one_side_of_the_split(planted, tmp_path):
    texts, _, _, _, _ = planted
    versions = {t: {t, *(changed(t, 0.04, n + k) for k in range(9))} for n, t in enumerate(texts[:20])}
    source = write(tmp_path / "text", [t for group in versions.values() for t in group])
    _, store = prepare(tmp_path / "s", [source], near=NearConfig("group"))
    split = documents(store)
    assert len(split["train"]) + len(split["valid"]) == sum(map(len, versions.values()))
    for group in versions.values():
        assert group <= set(split["train"]) or group <= set(split["valid"])
    assert 0.02 < store.valid.bytes / (store.valid.bytes + store.train.bytes) < 0.2


def test_sources_stand_one_behind_the_other_with_their_counts(tmp_path):
    first, second = [text(n) for n in range(40)], ["海风吹过石头。" * (20 + n) for n in range(20)]
    sources = [write(tmp_path / "en", first), write(tmp_path / "zh", second)]
    manifest, store = prepare(tmp_path / "s", sources, weights=(0.9, 0.1))
    for name in ("train", "valid"):
        split = getattr(store, name)
        en, zh = split.sources
        assert (en.start, en.stop, zh.stop) == (0, zh.start, len(split.tokens) - 1)
        found = texts_of(split.of(en), store.tokenizer), texts_of(split.of(zh), store.tokenizer)
        assert set(found[0]) <= set(first) and set(found[1]) <= set(second) and all(found)
        assert en.bytes == sum(len(t.encode()) for t in found[0])
    assert store.valid_text.read_text() == "".join(documents(store)["valid"])
    assert store.weights == (0.9, 0.1) and manifest["settings"]["weights"] == [0.9, 0.1]
    assert store.mixed((0.5, 0.5)).fingerprint != store.fingerprint


@pytest.mark.parametrize("settings, message", [
    ({"weights": (1.0, 2.0, 3.0)}, "3 weights for 2 sources"), ({"weights": (0.0, 0.0)}, "one above 0"),
    ({"weights": (-1.0, 2.0)}, "not be negative"), ({"clean": ("contrals",)}, "did you mean controls"),
    ({"weights": (0.5, 0.5), "quality": QualityConfig(on=True)}, "which has no text left"),
    ({"decontaminate": ("none.txt",)}, "no such file"),
])  # fmt: skip
def test_mistakes_are_one_line(tmp_path, settings, message):
    sources = [write(tmp_path / "a", [text(n) for n in range(9)]), write(tmp_path / "b", ["x\n", "y\n"])]
    with pytest.raises(UserError, match=message):
        prepare(tmp_path / "s", sources, **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_duplicates_are_counted_and_shown(tmp_path):
    texts = [text(n) for n in range(9)]
    manifest, _ = prepare(tmp_path / "s", [write(tmp_path / "a", [*texts, *texts[:5], *texts[:1]])])
    [found] = [stage for stage in manifest["stages"] if stage["stage"] == "duplicates"]
    assert found["dropped"] == found["rules"]["equal"]["documents"] == 6
    shown = {head: copies for _, copies, head in found["rules"]["equal"]["examples"]}
    assert len(shown) == 3 and all(copies == 1 + texts[0].startswith(head) for head, copies in shown.items())


def test_text_is_cleaned_when_asked(tmp_path):
    source = write(tmp_path / "t", [f"caf\u00c3\u00a9 {n}\r\n<b>the sea</b> and {n} winds\x07 " * 30 for n in range(9)])
    manifest, store = prepare(tmp_path / "s", [source], clean=("encoding", "controls", "html"))
    found = [t for split in documents(store).values() for t in split]
    assert all(t.startswith("café ") and "\nthe sea and" in t and "\r" not in t and "\x07" not in t for t in found)
    (clean, _) = manifest["stages"]
    assert clean["rules"]["changed"]["documents"] == 9 and clean["out"][1] < clean["in"][1]


def test_a_store_made_before_a_setting_is_complete_with_its_default(tmp_path):
    source = write(tmp_path / "t", [text(n) for n in range(9)])
    _, store = prepare(tmp_path / "s", [source])
    settings = dict(store.manifest["settings"])
    path = store.path / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("near", "quality", "weights"):
        del manifest["settings"][name]
    from chinchilla_jax.data.manifest import seal

    manifest["xxh3_128"] = seal(manifest)
    path.write_text(json.dumps(manifest))
    said = []
    config = DataConfig(sources=(source,), store=str(tmp_path / "s"), vocab_size=300, valid_fraction=0.1)
    build.prepare(config, said.append, show=False)
    assert "complete" in said[0] and settings["near"]["mode"] == "off"
    with pytest.raises(UserError, match=r"data\.near\.mode 'off', now 'drop'"):
        build.prepare(replace(config, near=NearConfig("drop")), said.append, show=False)


def test_table_and_page_say_what_was_left_out(filtered, tmp_path):
    _, manifest, _ = filtered
    lines = [line.split() for line in account.table(manifest)]
    assert ["gopher", "91", "3", "3.19%"] in lines and ["near", "60", "30", "33.33%"] in lines
    assert ["decontaminate", "90", "1", "1.10%"] in lines and ["words", "1"] in lines
    page, picture = account.write(manifest, tmp_path / "report")
    text = page.read_text()
    assert "too short" in text and "| train |" in text and "shared_run_of_words" in text and "clusters: 10" in text
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_field_that_no_source_has_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text(story(1))
    config = DataConfig(sources=(str(tmp_path / "a.txt"),), store=str(tmp_path / "s"), field="body")
    with pytest.raises(UserError, match=r"--data\.field body: no source has records"):
        build.prepare(config, lambda line: None, show=False)
    assert not (tmp_path / "s").exists()
