"""Tabs and newlines in the fields of a table with tabs."""

import pytest

from chinchilla_jax.tasks.read import read
from tests.tasks.made import SHARED


def test_tabs_and_newlines_in_quotes_of_tsv(tmp_path):
    """As in MultiDoGO; a quote that nothing closes stays what it is, and costs no other record."""
    (tmp_path / "a.tsv").write_text(
        'id\ttext\n1\t"two\ttabs"\n2\t"two\n\nlines"\n3\t"a ""b"" c\nd"\n4\t"stray\n"5\ty\n6\t"z\n'
    )
    found = read([tmp_path / "a.tsv"], text="text", label="id").records
    assert [r.texts[0] for r in found] == ["two\ttabs", "two\n\nlines", 'a "b" c\nd', '"stray', "y", '"z']
    (tmp_path / "b.tsv").write_text('a\ttext\tlabel\n1\t"x\ty\tz"\tgood\n2\t"so\tbad\n3\t"x\n w\tv"\tgood\n')
    assert [r.texts[0] for r in read([tmp_path / "b.tsv"]).records] == ["x\ty\tz", '"so', "x\n w\tv"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/tasks here")
@pytest.mark.parametrize("name, count", [("train", 13_128), ("dev", 1_844), ("test", 3_640)])
def test_every_turn_of_multidogo_software(name, count):
    path = SHARED / "customer_service" / "multidogo_software" / f"{name}.tsv.gz"
    assert len(read([path], ("labels",), text="utterance", label="intent").records) == count
