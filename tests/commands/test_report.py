"""The report command: one page and one picture."""

import json
import warnings

import pytest

from tests import runs


def test_the_page_and_the_picture(copy):
    report = runs.ask("report", **{"run-dir": copy})
    page, picture = (copy / "report.md").read_text(), (copy / "report.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000 and "(report.png)" in page
    last = runs.rows(copy)
    valid = next(row["valid_loss"] for row in reversed(last) if "valid_loss" in row)
    assert report["steps"] == 20 and report["train_loss"] == runs.losses(copy)[20]
    assert report["loss_nats_per_token"] == valid and f"| {valid:.4f} |" in page
    assert next(row["sample"] for row in reversed(last) if "sample" in row) in page
    assert "xz" not in page and report["wrote"] == [str(copy / "report.md"), str(copy / "report.png")]


def test_an_evaluation_adds_the_compressors(copy):
    figures = runs.ask("evaluate", **{"run-dir": copy})
    code, said = runs.call("report", **{"run-dir": copy})
    page = (copy / "report.md").read_text()
    assert code == 0 and "xz -9e" in said and "gzip -9" in said
    assert f"`xz -9e` on the same text, bits per byte | {figures['xz_bits_per_byte']:.4f}" in page
    assert f"`gzip -9` on the same text, bits per byte | {figures['gzip_bits_per_byte']:.4f}" in page
    assert f"**{figures['bits_per_byte']:.4f}**" in page


def test_a_row_that_a_kill_tore_is_left_out(copy):
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "lo')
    assert runs.ask("report", **{"run-dir": copy})["steps"] == 20


def test_losses_that_are_not_finite_are_drawn_as_gaps(copy):
    found = runs.rows(copy)
    found[3] |= {"loss": float("nan"), "bits_per_byte": float("nan")}
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    assert runs.ask("report", **{"run-dir": copy})["steps"] == 20


def test_a_run_that_was_validated_and_no_more(copy):
    found = [row for row in runs.rows(copy) if "loss" not in row]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    report = runs.ask("report", **{"run-dir": copy})
    assert report["steps"] == 20 and "train_loss" not in report and report["bits_per_byte"] > 0


def test_nothing_but_skipped_steps(copy):
    (copy / "metrics.jsonl").write_text('{"step": 5, "loss": null, "grad_norm": null, "bits_per_byte": null}\n')
    code, said = runs.call("report", **{"run-dir": copy})
    assert code == 0 and said.startswith("5 steps") and "bits per byte" not in said


@pytest.mark.parametrize("line", ["garbage", "[5]", "\x00\udcff", '{"loss": 1.5}'])
def test_a_damaged_row_is_named(copy, line):
    path = copy / "metrics.jsonl"
    rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"\n".join([rest[0], line.encode(errors="surrogateescape"), rest[1]]))
    code, said = runs.call("report", **{"run-dir": copy})
    assert code == 78 and said.count("\n") == 1 and f"{path}:2:" in said


def test_a_damaged_evaluation_is_named(copy):
    (copy / "evaluation.json").write_text("{")
    code, said = runs.call("report", **{"run-dir": copy})
    assert code == 78 and said.count("\n") == 1 and "evaluation.json" in said


def test_a_name_in_any_script_draws_without_a_warning(copy, tmp_path):
    copy = copy.rename(tmp_path / "海")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert runs.call("report", **{"run-dir": copy})[0] == 0
    assert "# 海" in (copy / "report.md").read_text()
