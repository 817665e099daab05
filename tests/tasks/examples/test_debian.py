"""Examples from Debian's packages."""

from chinchilla_jax.tasks.examples import debian


def test_descriptions_and_quotations(monkeypatch, tmp_path):
    body = " ".join(["word"] * 25)
    lists = tmp_path / "apt" / "lists"
    lists.mkdir(parents=True)
    (lists / "x_Packages").write_text("Package: foo-dev\nSource: foo (1.0)\nSection: net/web\nDescription-md5: 1\n")
    said = f"Package: foo-dev\nDescription-md5: 1\nDescription-en: a small tool\n {body}\n .\n more\n"
    monkeypatch.setattr(debian, "translations", lambda folder: said)
    assert list(debian.described(tmp_path)) == [("foo", "web", "a small tool", f"{body}\n\nmore")]
    [(group, row)] = debian.synopses(tmp_path)
    assert group == "foo" and row == {"document": f"{body}\n\nmore", "summary": "a small tool"}
    entry = "Bear, v.\n   To carry.\n\n            I bear it on my shoulders.   --Shak.\n"
    monkeypatch.setattr(debian, "package", lambda raw, name: name)
    monkeypatch.setattr(debian, "members", lambda archive, wanted: [("x", entry)])
    [(_, row)] = debian.quotations(tmp_path)
    [answer] = row["answers"]
    start = answer["answer_start"]
    assert answer["text"] == "Shak." == row["context"][start : start + 5] and "bear it" in row["question"]
