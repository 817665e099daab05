"""The store that is named after a source."""

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import naming


@pytest.mark.parametrize(
    "source, store",
    [
        ("shakespeare", "data/shakespeare"),
        ("debian_docs", "data/debian_docs"),
        ("tfds:c4/en:train", "data/c4"),
        ("tfds:wiki40b", "data/wiki40b"),
        ("novels", "data/novels"),
        ("novels/", "data/novels"),
        ("v1.2", "data/v1.2"),
        ("novels/emma.txt", "data/emma"),
        ("emma.v2.jsonl.gz", "data/emma.v2"),
        ("not/there.txt", "data/there"),
        ("data/mine", "data/mine-tokens"),
        ("data/mine.txt", "data/mine"),
        (".", "data/here"),
        ("novels/..", "data/here"),
        ("/", "data/text"),
        ("novels/*.txt", "data/novels"),
        ("novels/**/[a-e]*.jsonl.gz", "data/novels"),
        ("data/mine/*", "data/mine-tokens"),
        ("data/*.txt", "data-tokens"),
        ("*.txt", "data/here"),
        ("gs://bucket/web/*.gz", "data/web"),
    ],
)
def test_the_store_is_named_after_the_first_source(tmp_path, monkeypatch, source, store):
    for folder in ("novels", "v1.2", "data/mine"):
        (tmp_path / "here" / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    config = DataConfig(sources=(source, "other"))
    assert naming.with_store(config).store == store
    assert naming.with_store(DataConfig(sources=(source,), store="gs://b/s")).store == "gs://b/s"
