"""The page of a run, from rows with gaps and from damaged ones."""

import math

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation import report
from chinchilla_jax.training import metrics, origin

SKIPPED = {"step": 3, "loss": math.nan, "grad_norm": math.inf, "bits_per_byte": math.nan, "lr": 1e-3, "skipped": 1}
VALID = {"step": 4, "valid_loss": 2.0, "valid_bits_per_byte": 1.5}


def rows(tmp_path, *found) -> None:
    for row in found:
        metrics.append(tmp_path / "metrics.jsonl", row)


@pytest.mark.parametrize("line", [b"garbage", b"[5]", b"", b"\x00\xff", b'{"loss": 1.5}', b'{"step": "9"}'])
def test_a_damaged_row_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n' + line + b'\n{"step": 2, "loss": 1.0}\n')
    for use in (lambda: report.write(tmp_path), lambda: metrics.take_back(path, 1)):
        with pytest.raises(UserError, match=r"metrics\.jsonl:2: ") as caught:
            use()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("found, figures", [
    ([VALID], {"steps": 4, "loss_nats_per_token": 2.0, "bits_per_byte": 1.5}),
    ([SKIPPED], {"steps": 3}),
    ([{"step": 2, "loss": 3.0, "bits_per_byte": 2.0}, SKIPPED], {"steps": 3, "train_loss": 3.0}),
])  # fmt: skip
def test_gaps_are_left_out(tmp_path, found, figures):
    rows(tmp_path, *found)
    assert report.write(tmp_path) == figures
    assert (tmp_path / "report.png").stat().st_size > 5_000 and "None" not in (tmp_path / "report.md").read_text()
    assert f"{figures['steps']} steps" in report.headline(figures)
    assert ("bits per byte" in report.headline(figures)) == ("bits_per_byte" in figures)


def test_a_model_that_was_not_trained_here_has_no_number_of_steps(tmp_path):
    """A pruned or imported one; its checkpoint may be of step 20 all the same."""
    origin.write(tmp_path, {"source": "runs/mine", "format": "run", "step": 20, "fingerprint": "ab"})
    (tmp_path / "evaluation.json").write_text('{"step": 20, "bits_per_byte": 1.5, "store": "data/other"}')
    figures = report.write(tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "steps" not in figures and "| steps |" not in page and "**1.5000**" in page
    assert "| token store that `evaluate` read | data/other |" in page
    assert report.headline(figures).startswith("from runs/mine (run at step 20")


def test_a_damaged_evaluation_is_named(tmp_path):
    rows(tmp_path, VALID)
    for text in ("{", "5"):
        (tmp_path / "evaluation.json").write_text(text)
        with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
            report.write(tmp_path)
