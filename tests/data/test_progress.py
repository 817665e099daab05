"""Progress without a terminal."""

from chinchilla_jax.data import progress


def test_lines_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0)
    with progress.progress("encoding", 4_000_000) as advance:
        advance(1_000_000)
    with progress.progress("reading", 0) as advance:
        advance(2_000_000)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("encoding: 1.0 of 4.0 MB (25%), ") and second.startswith("reading: 2.0 MB, ")


def test_silence(capsys):
    with progress.progress("encoding", 10, show=False) as advance:
        advance(10)
    assert capsys.readouterr().out == ""
