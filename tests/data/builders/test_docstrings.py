"""Docstrings of a tree of Python files."""


def test_docstrings_of_a_tree(tmp_path):
    from chinchilla_jax.data.builders import docstrings

    long = "Long enough to be worth keeping as text, surely."
    (tmp_path / "pkg" / "tests").mkdir(parents=True)
    (tmp_path / "pkg" / "a.py").write_text(
        f'"""{long} A."""\ndef f():\n    """{long} F."""\nclass C:\n    """short"""\n'
    )
    (tmp_path / "pkg" / "b.py").write_text(f'"""{long} A."""\n')
    (tmp_path / "pkg" / "bad.py").write_text("def (")
    (tmp_path / "pkg" / "odd.py").write_text(f'"""{long} \\ud800"""\n')
    (tmp_path / "pkg" / "tests" / "t.py").write_text(f'"""{long} T."""\n')
    assert list(docstrings.documents([tmp_path])) == [("pkg.a", f"{long} A.\n\n\n{long} F.\n")]
