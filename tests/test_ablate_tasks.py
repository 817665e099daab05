"""The rule of tools/ablate_tasks.py on made-up scores, and its table of runs."""

import json
import shutil
import sys

import numpy as np
import pytest

from tests.runs import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import ablate_tasks as tool
import ablate_tasks_report as reports


def test_the_committed_plan_is_the_table_of_the_tool(tmp_path):
    """What was said before the runs is what the tool runs, rule and all."""
    (tmp_path / "none").mkdir()
    args = tool.argparse.Namespace(out=tmp_path)
    tool.plan(args)
    committed = json.loads((ROOT / "docs/ablation/tasks/plan.json").read_text())
    assert json.loads((tmp_path / "plan.json").read_text()) == committed
    names = committed["runs"]
    assert len(names) == len(set(names)) == 4 * 4 * 4 * 3 + 9 * 3 * 3 and len(committed["tasks"]) == 4


def test_records_of_a_sorted_file_are_taken_from_all_of_it(tmp_path):
    rows = [{"text": str(i), "entities": {"a": "up" if i < 50 else "down"}} for i in range(100)]
    task = tool.TASKS["sentfin"]._replace(train="a.jsonl", test="b.jsonl", records=10)
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tool.TASKS, "sentfin", task)
        train, test = tool.files("sentfin", tmp_path, tmp_path / "runs")
    assert [json.loads(line)["text"] for line in train.read_text().splitlines()] == [str(i) for i in range(0, 100, 10)]
    assert test.read_text() == (tmp_path / "b.jsonl").read_text()
    assert tool.taken([1, 2, 3], 2, False) == [1, 2] and tool.taken([1, 2, 3], 0, True) == [1, 2, 3]


def test_holm_counts_in_order():
    """Of 0.01, 0.02, 0.03, 0.04 at 5 %: 0.01 <= 0.0125, 0.02 > 0.0167, and nothing behind it."""
    assert reports.holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.02}) == {"b": True, "d": False, "c": False, "a": False}


def test_p_values_agree_with_the_formula():
    """t = mean / (s / sqrt(3)); with two degrees of freedom p = 1 - |t| / sqrt(t^2 + 2)."""
    for values in ([0.1, 0.2, 0.15], [-0.3, 0.1, 0.05]):
        t = np.mean(values) / (np.std(values, ddof=1) / np.sqrt(3))
        assert reports.p_value(values) == pytest.approx(1 - abs(t) / np.sqrt(t * t + 2), abs=1e-12)


@pytest.mark.parametrize(
    ("differences", "answer"),
    [
        ({"a": [0.1, 0.101, 0.1], "b": [0.2, 0.201, 0.2], "c": [0, 0.1, -0.1]}, "worth it (better: a, b; worse: none)"),
        ({"a": [0.1, 0.101, 0.1], "b": [0.2, 0.201, 0.2], "c": [-0.1, -0.101, -0.1]}, "not worth it"),
        ({"a": [0.1, 0.101, 0.1], "b": [0.0, 0.1, -0.1], "c": [0, 0.1, -0.1]}, "not worth it"),
        ({"a": [0.1, 0.1], "b": [0.2, 0.2, 0.2]}, "no answer"),
    ],
)
def test_the_rule(differences, answer):
    assert reports.verdict(differences, 3).startswith(answer)


def test_empty_cells_are_said(tmp_path):
    scores = {"clean": 0.8, "noise": 0.7, "swaps": 0.75, "attack": 0.5, "ece": 0.1}
    page = reports.page({"downstream/uci/plain/plain-s0": scores}, list(tool.cells()), tool)
    assert "1 of 273 runs are there" in page and "80.0 (one seed)" in page and page.count("no answer:") == 12
    assert "- `downstream/uci`: 47 of 48" in page and "- `methods/airline`: 27 of 27" in page


def test_a_report_keeps_the_figures_of_runs_that_are_gone(tmp_path):
    args = tool.argparse.Namespace(runs=tmp_path / "runs", out=tmp_path)
    names = ["methods/uci/lora-s0", "methods/uci/lora-s1"]
    for name, clean in zip(names, (0.8, 0.6)):
        folder = args.runs / name
        folder.mkdir(parents=True)
        (folder / "scores.json").write_text(json.dumps({"clean": clean}))
        (folder / "cost.json").write_text('{"seconds": 9, "trained_parameters": 12345, "memory_bytes": 2e6}')
        tool.report(args)
        shutil.rmtree(folder)
    assert "| uci | lora | 70.0 ± 14.1 | 12,345 | 2 | 9 |" in (tmp_path / "README.md").read_text()
    assert list(json.loads((tmp_path / "figures.json").read_text())) == names
