"""Records with labels."""

from chinchilla_jax.tasks.read import read


def test_labels_with_a_divider(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\nt\tgreet<div>book\n")
    assert read([tmp_path / "a.tsv"]).records[0].labels == ("greet", "book")
