"""Pairs of paragraphs from the help of LibreOffice."""

from chinchilla_jax.tasks.examples import libreoffice


def test_paragraphs_meet_by_their_ids(monkeypatch, tmp_path):
    pages = {
        "en-us": '<h1 id="a">Short</h1><p id="p1">One two three <b>four</b></p>'
        '<p><span id="p2"></span>same in both ones</p>',
        "de": '<h1 id="a">Kurz</h1><p id="p1">Eins zwei  drei vier</p><p><a id="p2"></a>same in both ones</p>',
    }
    monkeypatch.setattr(libreoffice, "package", lambda raw, name: name.removeprefix("libreoffice-help-"))
    monkeypatch.setattr(
        libreoffice, "members", lambda archive, wanted: [(f"/usr/help/{archive}/text/a.html", pages[archive])]
    )
    assert [row for _, row in libreoffice.pairs("de")(tmp_path)] == [
        {"translation": {"en": "One two three four", "de": "Eins zwei drei vier"}}
    ]
