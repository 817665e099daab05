"""The page of a tuned run: its headline, and predictions that differ from their references."""

from types import SimpleNamespace

import pytest

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
    row = {"input": "a" * 200 + "b" * 200, "rank": 3, "inner": {"text": "x" * 300}}
    cut = report.shortened(row)
    assert cut == {**row, "input": "a" * 150 + " ... " + "b" * 150}


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


def test_a_run_that_has_not_ended_has_no_report(tmp_path):
    with pytest.raises(UserError, match=r"has not ended yet; go on with finetune --run-dir"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())
