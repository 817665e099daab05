"""Cells of a table of runs: columns by other code bases' names, conditions, failed runs."""

import json

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling.runs import read
from tests.scaling.tables import rows, write


def test_failed_runs_are_left_out_by_a_flag(file):
    write(file, rows(loss_2="nan", loss_3=""))
    with pytest.raises(UserError, match="row 3, column loss: 'nan'"):
        read(file)
    found = read(file, drop_failed=True)
    lines = ("row 3: the run failed, its loss is nan", "row 4: the run failed, its loss is nothing")
    assert list(found.row) == [2, 5] and found.dropped == lines


@pytest.mark.parametrize(("where", "kept"), [
    (["tokens<3.5e9"], [3, 4, 5]), (["tokens>=3e9"], [2, 3]), (["run_id!=r1"], [3, 4, 5]),
    (["run_id=r2", "loss<9"], [3]),
])  # fmt: skip
def test_conditions(file, where, kept):
    if len(kept) == 1:
        with pytest.raises(UserError, match="all 1 rows are one run"):
            read(write(file, rows()), where=where)
    else:
        assert list(read(write(file, rows()), where=where).row) == kept


def test_conditions_that_compare_no_numbers(file):
    with pytest.raises(UserError, match="row 2, column run_id: 'r1' < 3 compares what is no number"):
        read(write(file, rows()), where=["run_id<3"])
    with pytest.raises(UserError, match=r"no column 'tokes' .did you mean tokens"):
        read(write(file, rows()), where=["tokes<3"])


def test_columns_of_other_code_bases(file):
    """Levanter's GFLOPs, the last row with a loss of each run, and runs that finished alone."""
    head = ["Name", "State", "parameter_count", "throughput/total_tokens", "throughput/total_gflops", "eval/loss"]
    cells = []
    for name, state, n, d, loss in (("a", "finished", 1e8, 1e9, 3.5), ("a", "finished", 1e8, 2e9, 3.2),
                                    ("a", "finished", 1e8, 2e9, ""), ("b", "finished", 2e8, 2e9, 3.1),
                                    ("c", "crashed", 4e8, 2e9, 9.0), ("d", "finished", 4e8, 4e9, 2.8)):  # fmt: skip
        cells.append([name, state, n, d, 6 * n * d / 1e9, loss])
    found = read(write(file, cells, head), source="levanter")
    assert list(found.row) == [3, 5, 7] and found.per_nd == pytest.approx(6) and found.unit == "nats_token"
    assert any("State is 'crashed'" in line for line in found.dropped) and len(found.dropped) == 3
    with pytest.raises(UserError, match="did you mean levanter"):
        read(file, source="levantar")
    with pytest.raises(UserError, match="row 1 has no column that --from levanter knows"):
        read(write(file, [[1e8, 1e9, 3.0]], ["n_total", "tokens", "loss"]), source="levanter")


def _maxtext(run, n, steps):
    """A metrics file of MaxText: a row a step, a row of its own for an evaluation, written before that step's."""
    rows = [{"learning/loss": 9.0 - i / 9, "learning/total_weights": 65536.0, "step": float(i)} for i in range(steps)]
    rows.insert(steps - 1, {"eval/avg_loss": 4.0 - n / 1e9, "eval/total_weights": 4096.0, "step": steps - 1.0})
    return [row | {"run_name": run, "num_model_parameters": n} for row in rows], 65536.0 * steps


def _torchtitan(run, n, steps):
    """TorchTitan's log: training and validation apart; the older name of the tokens."""
    rows = [{"loss_metrics/global_avg_loss": 5.0, "ntokens_seen": 4e6 * i, "tflops": 1.0} for i in range(1, steps + 1)]
    rows.append({"validation_metrics/loss": 4.0 - n / 1e9, "validation_metrics/throughput(tps)": 1.0})
    return [row | {"name": run, "num_params": n} for row in rows], 4e6 * steps


def _levanter(run, n, steps):
    """A history of Levanter, whose size is in the summary alone."""
    rows = [{"train/loss": 5.0, "throughput/total_tokens": 1e6 * i, "throughput/total_gflops": 6e-3 * n * i}
            for i in range(1, steps + 1)]  # fmt: skip
    rows[-1]["eval/loss"] = 4.0 - n / 1e9
    return [{"run_id": run, "parameter_count": n, "state": "finished"}, *(row | {"run_id": run, "state": "finished"}
            for row in rows)], 1e6 * steps  # fmt: skip


def _nanochat(run, n, steps):
    """A record of nanochat's curve.log, as scripts/curve.py names its fields."""
    base = {"num_params": n, "num_scaling_params": 0.8 * n, "tokens_trained": 1e6 * steps, "val_bpb": 4.0 - n / 1e9}
    base["target_flops"] = 5e6 * n * steps
    row = {"model_tag": run, "sft.val_bpb": 0.4} | {f"base.{name}": value for name, value in base.items()}
    return [row], 1e6 * steps


def _wandb(run, n, steps):
    """A run of Hugging Face's Trainer."""
    rows = [{"train/loss": 5.0, "train/num_input_tokens_seen": 1e6 * i} for i in range(1, steps + 1)]
    rows += [{"eval/loss": 4.0 - n / 1e9}, {"train/total_flos": 5e6 * n * steps}]
    return [row | {"Name": run, "model/num_parameters": n, "State": "finished"} for row in rows], 1e6 * steps


@pytest.mark.parametrize(
    "write_run", [_maxtext, _torchtitan, _levanter, _nanochat, _wandb], ids=lambda f: f.__name__[1:]
)
def test_logs_as_other_code_bases_write_them(tmp_path, write_run):
    """Of each run one row: its last loss, with the tokens and the size that other rows of it tell."""
    path, expected = tmp_path / "log.jsonl", []
    with path.open("w") as file:
        for i, (n, steps) in enumerate(((1e7, 60), (2e7, 300), (4e7, 120))):
            rows, tokens = write_run(f"r{i}", n, steps)
            expected.append((n, tokens, 4.0 - n / 1e9))
            file.writelines(json.dumps(row) + "\n" for row in rows)
    found = read(path, source=write_run.__name__[1:])
    np.testing.assert_allclose(np.stack([found.N, found.D, found.loss], 1), expected)
    assert found.unit == {"_nanochat": "bpb", "_wandb": "nats_token, assumed"}.get(write_run.__name__, "nats_token")
