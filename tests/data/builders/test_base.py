"""A data set of texts, written and read back."""

from pathlib import Path

from chinchilla_jax.data import tfds_source
from chinchilla_jax.data.builders.base import TextBuilder
from tests.data.reading import documents


class Poems(TextBuilder, skip_registration=True):
    """Some lines."""

    LICENCE, HOMEPAGE = "CC0", "https://example.org"

    def splits(self, raw):
        """Where raw files would be looked for, and two texts."""
        return {"train": iter([("where", str(raw)), ("b", "海\n"), ("a", "")]), "validation": [("c", "held out")]}


def test_splits_keep_their_order_and_raw_files_lie_beside_them(tmp_path):
    builder = Poems(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    source = tfds_source.open_folder("poems", Path(builder.data_dir), "", "text")
    expected = [str(tmp_path / "raw/poems"), "海\n", "", "held out"]
    assert [(d.text, d.split) for d in documents(source)] == list(zip(expected, ["train"] * 3 + ["valid"]))
    assert source.licence == "CC0"
    names = tfds_source.open_folder("poems", Path(builder.data_dir), "train", "name")
    assert [d.text for d in documents(names)] == ["where", "b", "a"]
