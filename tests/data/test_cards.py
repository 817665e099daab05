"""Cards and lists of features that stand beside a data set are no text of it."""

import pytest

from chinchilla_jax.data import files
from chinchilla_jax.errors import UserError
from tests.data.reading import documents
from tests.data.test_files import read


def test_the_card_of_a_data_set_is_no_text_of_it(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nWhat it is")
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert len(read(tmp_path)) == 2, "without records it is like any other text"
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "data/README.md").write_text("no header")
    source = files.open_path(str(tmp_path), "text")
    assert sorted(d.text for d in documents(source)) == ["no header", "one"]
    assert source.skipped["cards of data sets"] == 2
    (tmp_path / "data/a.jsonl").rename(tmp_path / "data/a.arrow")
    (tmp_path / "data/README.md").unlink()
    with pytest.raises(UserError, match=r"skipped .*1 Arrow files \(`Dataset.to_parquet`"):
        files.open_path(str(tmp_path), "text")
