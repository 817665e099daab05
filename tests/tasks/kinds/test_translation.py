"""Scores of translations in the report: of all references, with the signature that says how they were counted."""

import pytest

from chinchilla_jax.tasks.kinds import translation

pytest.importorskip("sacrebleu")


def test_the_report_has_the_figures_of_validation_and_how_they_were_counted():
    """Blanks round an output do not count; without predictions there is no section."""
    outputs = ["the old wind sings ", "over the cold sea"]
    given = [["a wind sings", "the old wind sings"], ["over a cold sea"]]
    rows = [{"output": outputs[0], "reference": given[0][0], "references": given[0]},
            {"output": outputs[1], "reference": given[1][0]}]  # fmt: skip
    figures = translation.score([text.strip() for text in outputs], given, "en")
    lines = translation.signature({}, rows)
    assert lines[0] == "## Scores" and len(lines) == 6
    for name, value in figures.items():
        assert f"- {name} {value:.2f} on 2 validation pairs" in lines
    assert lines[4].startswith("- `") and "tok:13a" in lines[4]
    assert 0 < figures["bleu"] < 100 and translation.signature({}, []) == []
