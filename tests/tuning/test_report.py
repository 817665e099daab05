"""The page of a tuned run: its headline, and predictions that differ from their references."""

import json
import warnings
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from chinchilla_jax.errors import UserError
from chinchilla_jax.tuning import report

FOUND = {
    "best_step": 40, "metric": "valid_accuracy", "best": {"valid_accuracy": 0.9, "valid_loss": 0.25, "rows": 7},
    "last_step": 60, "last": {"loss": 0.1, "valid_loss": 0.5, "seconds": 3.0}, "kind": "labels", "method": "lora",
    "base": "runs/base", "examples": ["24 records", "2 left out"],
}  # fmt: skip


def test_best_and_last_are_told_by_the_same_figures():
    assert report.headline(FOUND).splitlines() == [
        "best: checkpoint 40 by valid_accuracy (valid_accuracy 0.9000, valid_loss 0.2500)",
        "last: checkpoint 60 (loss 0.1000, valid_loss 0.5000)",
    ]
    tested = report.headline({**FOUND, "test": {"test_accuracy": 1.0}}).splitlines()
    assert tested[2:] == ["test, with the best: test_accuracy 1.0000"]
    without = report.headline({**FOUND, "best_step": None, "best": {}}).splitlines()
    assert without[0] == "best: none, since valid_accuracy was a number in no validation"


def test_long_texts_are_cut_in_the_middle_and_nothing_else():
    text = "a" * 200 + "b" * 200
    row = {"input": text, "rank": 3, "inner": {"text": "x" * 300}, "references": ["short", text]}
    cut = report.shortened(row)
    short = "a" * 150 + " ... " + "b" * 150
    assert cut == {**row, "input": short, "references": ["short", short]}


def test_what_is_wrong_is_shown_and_not_too_much_of_it(monkeypatch):
    kind = SimpleNamespace(
        sections=lambda found, rows: ["## By label", ""], wrong=lambda row: row["output"] != row["reference"]
    )
    monkeypatch.setattr(report, "kind_of", lambda name: kind)
    rows = [{"output": str(n), "reference": str(n % 3)} for n in range(30)]
    lines = report.page("mine", FOUND, rows).splitlines()
    assert lines[0] == "# mine" and "`lora` on labels, from `runs/base`." in lines and "- 2 left out" in lines
    at = lines.index("## Where output and reference differ")
    assert lines[at - 2] == "## By label"
    shown = [line for line in lines[at:] if line.startswith("    {")]
    assert len(shown) == report.EXAMPLES and shown[0] == '    {"output": "3", "reference": "0"}'
    assert "differ" not in report.page("mine", FOUND, rows[:3])


def test_the_picture_names_the_labels(tmp_path, monkeypatch):
    """In a folder that is made; what the font lacks goes by its place, and nothing is read as mathematics."""
    names, drawn = ["$a_b$", "海", "very long " * 5, "ß"], []
    found = {**FOUND, "labels": names}
    (tmp_path / "finetune.json").write_text(json.dumps(found))
    rows = [{"output": name, "reference": name, "input": "x", "probability": 0.5} for name in names]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "metrics.jsonl").write_text('{"step": 40, "loss": 0.1, "valid_accuracy": 0.9}\n')
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **how: (drawn.append(figure), save(figure, *args, **how))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.write(tmp_path, tmp_path / "new" / "page")
    assert {path.name for path in (tmp_path / "new" / "page").iterdir()} == {"report.md", "report.png"}
    axes = drawn[0].axes[2]
    shown = [tick.get_text() for tick in axes.get_xticklabels()]
    assert (
        shown == [tick.get_text() for tick in axes.get_yticklabels()] == ["$a_b$", "2.", "very long very long ...", "ß"]
    )


def test_a_run_that_has_not_ended_has_no_report(tmp_path):
    with pytest.raises(UserError, match=r"has not ended yet; go on with finetune --run-dir"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())
