"""TFDS data sets without TensorFlow."""

import json
import sys

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import tfds_source
from chinchilla_jax.errors import UserError
from tests.data.reading import documents


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with the data sets toy/1.0.0 (train, validation), many/{a,b}/1.0.0 (train) and broken/1.0.0."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")

    class Rows(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Writes what `splits` holds."""

        VERSION = tfds.core.Version("1.0.0")
        code_path = None
        name, splits = "", {}

        def _info(self):
            features = {"text": tfds.features.Text(), "label": tfds.features.Text()}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), license="CC0", disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in self.splits.items()}

        def _generate_examples(self, rows):
            yield from enumerate(rows)

    def write(called, split_rows, config=None):
        class Named(Rows, skip_registration=True):
            """Rows under another name."""

            name, splits = called, split_rows
            BUILDER_CONFIGS = [config] if config else []

        Named(data_dir=str(folder), file_format="array_record").download_and_prepare()

    rows = [{"text": f"text {n} 海", "label": f"label {n}"} for n in range(6)]
    write("toy", {"train": rows[:4], "validation": rows[4:]})
    write("many", {"train": rows}, tfds.core.BuilderConfig(name="a", version="1.0.0"))
    write("many", {"train": rows}, tfds.core.BuilderConfig(name="b", version="1.0.0"))
    write("broken", {"train": [{"text": b"\xff", "label": "x"}]})
    return folder


def read(data_dir, name, **options):
    """All documents of a source."""
    return list(documents(tfds_source.open_named(name, DataConfig(data_dir=str(data_dir), **options))))


def test_its_own_splits_are_kept(data_dir):
    found = read(data_dir, "tfds:toy")
    assert [(d.text, d.split) for d in found] == [(f"text {n} 海", "train" if n < 4 else "valid") for n in range(6)]
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("name", "count"), [("toy:train", 4), ("toy:validation", 2), ("toy:train[:50%]", 2), ("many/b:train", 6)]
)
def test_a_named_split_is_split_by_hash_later(data_dir, name, count):
    found = read(data_dir, f"tfds:{name}")
    assert len(found) == count and {d.split for d in found} == {""}


def test_another_field(data_dir):
    assert read(data_dir, "tfds:toy:train", field="label")[0].text == "label 0"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfds:", "write tfds:NAME/CONFIG:SPLIT"),
        ("tfds:none/x:train", r"not in .*tfds build none/x --file_format=array_record --data_dir="),
        ("tfds:many:train", r"name one of its configs: tfds:many/a, tfds:many/b"),
        ("tfds:toy:dev", r"no split 'dev'; it has train, validation"),
    ],
)
def test_mistakes_are_one_line_with_the_fix(data_dir, name, message):
    with pytest.raises(UserError, match=message):
        read(data_dir, name)


def test_a_missing_field_and_broken_text(data_dir):
    with pytest.raises(UserError, match=r"no field 'body'; .*--data\.field: label, text"):
        read(data_dir, "tfds:toy:train", field="body")
    with pytest.raises(UserError, match=r"broken.*not UTF-8"):
        read(data_dir, "tfds:broken:train")


def test_tfrecord_says_how_to_convert(data_dir):
    info = data_dir / "old" / "1.0.0" / "dataset_info.json"
    info.parent.mkdir(parents=True)
    for content, message in ((json.dumps({"fileFormat": "tfrecord"}), "stored as tfrecord"), ("{", "damaged")):
        info.write_text(content)
        with pytest.raises(UserError, match=message):
            read(data_dir, "tfds:old:train")


def test_the_newest_version_is_taken(data_dir):
    for version in ("1.9.0", "1.10.0"):
        folder = data_dir / "versions" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text('{"fileFormat": "array_record"}')
    assert tfds_source.find(data_dir / "versions", "tfds:versions").name == "1.10.0"
