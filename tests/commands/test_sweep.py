"""The command: a plan that is shown and not run, and one line for every mistake."""

from tests import runs
from tests.evaluation.test_sweep import make_quick, sweep


def test_bad_input_is_one_line(tiny_store, tmp_path):
    for words, changes, word in (
        ((), {"budget": 1e3}, "needs at least"),
        ((), {"minutes": 1}, "--budget"),
        (("--next", "-1"), {"budget": 1e9}, "--next -1"),
        (("--next", "1", "--law", "debian-cpu", "--flops", "nan"), {"budget": 1e9}, "--flops nan"),
        (("--law", "debian-cpu"), {"budget": 1e9}, "belong to --next"),
        (("--flops", "1e12"), {"budget": 1e9}, "belong to --next"),
        (("--next", "1", "--law", "debian-cpu"), {"budget": 1e9, "minutes": 1}, "no --minutes"),
        (("--train.batch-ramp", "((5, 16),)"), {}, "batch-ramp"),
        ((), {"data.store": tmp_path / "none"}, "no token store"),
    ):
        code, said = sweep(tmp_path / "bad", tiny_store, *words, **changes)
        assert code == 78 and word in said and said.count("\n") == 1, said
    for minutes in ("-1", "nan", "inf"):  # before this machine is measured
        code, said = runs.call("sweep", f"--minutes={minutes}", "--run-dir", str(tmp_path / "bad"))
        assert code == 78 and f"--minutes {float(minutes)} must be" in said and said.count("\n") == 1, said
    assert not (tmp_path / "bad").exists()


def test_a_dry_run_shows_the_plan_and_writes_nothing(tiny_store, tmp_path, monkeypatch):
    make_quick(monkeypatch)
    code, said = sweep(tmp_path / "dry", tiny_store, "--dry-run", "--design", "isoflop", budget=1e9)
    assert code == 0 and "tokens a parameter" in said and not (tmp_path / "dry").exists()
