"""The table of runs: what it takes, and every refusal with its row and column."""

import json
import re

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling.runs import read, table, without_outliers
from tests.scaling.tables import HEAD, rows, write


def test_csv_and_jsonl_agree(file, tmp_path):
    found = read(write(file, rows()))
    lines = tmp_path / "runs.jsonl"
    lines.write_text("\n".join(json.dumps(dict(zip(HEAD, row))) for row in rows()))
    same = read(lines)
    for name in ("N", "D", "C", "loss", "cluster"):
        np.testing.assert_array_equal(getattr(found, name), getattr(same, name))
    assert (found.unit, found.accounting, found.count) == ("nats_token", "6ND_total", "n_total")
    assert list(found.row) == [2, 3, 4, 5] and list(same.row) == [1, 2, 3, 4]


def test_tokens_from_flops_by_other_names(file):
    write(file, [[1e8, 6e18, 3.0], [2e8, 6e18, 2.9], [4e8, 6e18, 2.95]], ["Model Size", "Training FLOP", "loss"])
    found = read(file, {"n_total": "Model Size", "flops": "Training FLOP"})
    np.testing.assert_allclose(found.D, [1e10, 5e9, 2.5e9])
    assert found.clusters == 3 and found.unit == "nats_token, assumed" and found.accounting == "Training FLOP"


def test_clusters_are_numbered_as_they_come(file):
    """Seeded resamples follow the file, not the alphabet."""
    head = ["run_id", "cluster_id", "n_total", "tokens", "loss"]
    cells = [
        ["z", "t10", 1e7, 1e9, 3],
        ["z", "t10", 1e7, 2e9, 2.9],
        ["a", "t9", 2e7, 1e9, 2.8],
        ["b", "t10", 1e7, 4e9, 2.7],
    ]
    assert list(read(write(file, cells, head)).cluster) == [0, 0, 1, 0]
    cells[1][1] = "t9"
    with pytest.raises(UserError, match="row 3, column cluster_id: run z"):
        read(write(file, cells, head))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_3": "nan"}, "row 4, column loss: 'nan' is no positive finite number"),
        ({"loss_3": ""}, "row 4, column loss: nothing is no"),
        ({"loss_1": -1}, "row 2, column loss: '-1'"),
        ({"n_total_2": 0}, "row 3, column n_total: '0'"),
        ({"tokens_4": "inf"}, "row 5, column tokens: 'inf'"),
        ({"tokens_4": "many"}, "row 5, column tokens: 'many'"),
        ({"flops_6ND_total_2": ""}, "row 3, column flops_6ND_total: nothing"),
        ({"unit_3": "bpb"}, "row 4, column unit: 'bpb' beside 'nats_token' in row 2"),
        ({f"run_id_{i}": "r1" for i in range(1, 5)}, "row 2, column run_id: all 4 rows are one run"),
        ({f"n_total_{i}": 1e7 for i in range(1, 5)}, "row 2, column n_total: all 4 rows have one size"),
        ({f"tokens_{i}": 1e9 for i in range(1, 5)}, "row 2, column tokens: all 4 rows have one length"),
        (
            {f"loss_{i}": 3.0 for i in range(1, 5)},
            "row 2, column loss: all 4 rows have one loss, 3; a law",
        ),
        ({"loss_3": 1800.0}, "row 4, column loss: 1800 is no loss; is it a perplexity?"),
    ],
    ids=str,
)
def test_bad_cells(file, changes, message):
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        read(write(file, rows(**changes)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("column", ["n_total", "loss"])
def test_missing_column(file, column):
    i = HEAD.index(column)
    write(file, [row[:i] + row[i + 1 :] for row in rows()], HEAD[:i] + HEAD[i + 1 :])
    with pytest.raises(UserError, match=f"row 1 has no column '{column}'.*--columns {column}=NAME"):
        read(file)


def test_other_faults_of_the_file(file, tmp_path):
    with pytest.raises(UserError, match="no such table"):
        read(tmp_path / "nothing.csv")
    with pytest.raises(UserError, match=r"row 1 has no column 'Loss' for loss .did you mean loss"):
        read(write(file, rows()), {"loss": "Loss"})
    with pytest.raises(UserError, match=r"row 3, column .*5 cells under 6 columns"):
        read(write(file, [rows()[0], rows()[1][:5]]))
    with pytest.raises(UserError, match="is empty"):
        read(write(file, [], [""]))
    with pytest.raises(UserError, match="no rows"):
        read(write(file, []))
    (tmp_path / "x.jsonl").write_text('{"loss": 1}\n{')
    with pytest.raises(UserError, match="row 2 is not JSON"):
        read(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_text("[" * 100_000)
    with pytest.raises(UserError, match="row 1 is not JSON"):
        read(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_text('{"n_total": 1' + "0" * 400 + ', "tokens": 1, "loss": 1}')
    with pytest.raises(UserError, match="row 1, column n_total"):
        read(tmp_path / "x.jsonl")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"write the runs as \.jsonl"):
        read(tmp_path / "x.json")
    with pytest.raises(UserError, match="row 2 is not CSV"):
        read(write(file, [[*rows()[0][:-1], "x" * 200_000]]))


def test_a_line_ends_where_the_format_says(tmp_path):
    """Not at U+2028 in a JSON string or a CSV cell, nor inside quotes."""
    held = [{"n_total": n, "tokens": 20 * n * (i + 1), "loss": 3 - i / 9, "note": "a\u2028b\x0bc"}
            for i, n in enumerate((1e8, 2e8, 4e8))]  # fmt: skip
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held), "utf-8")
    text = "n_total,tokens,loss,note\r\n" + "".join(
        f'{row["n_total"]},{row["tokens"]},{row["loss"]},"{row["note"]}\n"\r\n' for row in held
    )
    (tmp_path / "x.csv").write_text(text, "utf-8", newline="")
    found = [read(tmp_path / f"x.{kind}") for kind in ("jsonl", "csv")]
    assert np.array_equal(found[0].loss, found[1].loss) and list(found[1].row) == [3, 5, 7]


def test_mixed_accountings(file):
    """Two FLOP columns, neither of the count's own 6ND: the user chooses."""
    head = [*HEAD[:5], "flops_palm", "flops_matmul"]
    write(file, [[*row, row[-1]] for row in rows()], head)
    with pytest.raises(UserError, match=r"flops_palm, flops_matmul; choose one with --columns flops="):
        read(file)
    assert read(file, {"flops": "flops_palm"}).accounting == "palm"


@pytest.mark.parametrize("column", ["dataset", "tokenizer", "loss_kind", "decayed"])
def test_mixed_kinds_are_refused_and_can_be_chosen(file, column):
    cells = [[*row, "one" if i < 3 else "two"] for i, row in enumerate(rows())]
    write(file, cells, [*HEAD, column])
    with pytest.raises(UserError, match=f"row 5, column {column}: 'two' beside 'one' in row 2; .*--where {column}=one"):
        read(file)
    found = read(file, where=[f"{column}=one"])
    assert len(found.N) == 3 and found.dropped == (f"row 5: {column} is 'two'",)


def test_arrays_are_checked_too():
    with pytest.raises(UserError, match="row 2, column loss: nan"):
        table([1e7, 2e7], [1e9, 2e9], [3, np.nan])
    with pytest.raises(UserError, match="of one length"):
        table([1e7, 2e7], [1e9], [3, 2])


def test_outliers_are_listed():
    runs = table([1e7, 2e7, 3e7, 4e7], [1e9, 2e9, 1e9, 3e9], [3, 5, 4, 2])
    kept = without_outliers(runs, 2)
    assert list(kept.row) == [1, 4] and [line.split(":")[0] for line in kept.dropped] == ["row 2", "row 3"]
    with pytest.raises(UserError, match="--drop-outliers 9"):
        without_outliers(runs, 9)


def test_compute_is_six_n_d_where_the_table_has_none(file):
    head = ["n_nonembed", "tokens", "loss"]
    found = read(write(file, [[1e7, 1e9, 3], [2e7, 3e9, 2.5]], head))
    assert (found.count, found.accounting) == ("n_nonembed", "6ND_nonembed")
    np.testing.assert_allclose(found.C, 6 * found.N * found.D)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"flops_6ND_total_3": 1.8e16},
            "row 4, column flops_6ND_total: 1.8e+16 is not 6 n_total tokens = 3.6e+17 to 5%",
        ),
        ({"tokens_2": 3e10, "flops_6ND_total_2": 3.6e17}, "row 3, column flops_6ND_total"),
    ],
    ids=str,
)
def test_compute_off_its_own_name(file, changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read(write(file, rows(**changes)))


def test_compute_that_cannot_be(file):
    """Another accounting's column in GFLOPs, a row off tenfold, and GFLOPs where there are no tokens."""
    head = [*HEAD[:5], "flops_palm"]
    giga = [[*row[:5], row[5] / 1e9] for row in rows()]
    with pytest.raises(UserError, match=r"row 2, column palm: C = 2.4e\+08 is 6e-09 N D, outside 1 to 60"):
        read(write(file, giga, head))
    tenfold = rows()
    tenfold[2][5] *= 9.9
    with pytest.raises(UserError, match=r"row 4, column palm: C = .* is 59.4 N D, where the table's median is 6"):
        read(write(file, tenfold, head))
    write(file, [[1e8, 6e9, 3.0], [2e8, 6e9, 2.9], [4e8, 6e9, 2.95]], ["n_total", "flops", "loss"])
    with pytest.raises(UserError, match=r"row 2, column tokens: 10 tokens for 1e\+08 parameters cannot be"):
        read(file)


def test_equal_rows_are_one_run():
    again = [[1e7, 2e7, 3e7, 1e7], [1e9, 2e9, 4e9, 1e9], [3.0, 2.5, 2.2, 3.0]]
    assert table(*again).clusters == 3
    assert table(*again, cluster=["a", "b", "b", "c"]).clusters == 2


def test_a_run_that_ends_in_nan_is_no_run_that_ended_before(tmp_path):
    """A last loss of nan is the run's: refused with its row, or left out by the flag."""
    path = tmp_path / "log.csv"
    losses = ((1e7, 3.5, 3.4), (2e7, 3.2, "nan"), (4e7, 3.3, 3.0))
    rows = [[f"r{i}", n, 1e9 * (i + j + 1), loss[j]] for i, (n, *loss) in enumerate(losses) for j in (0, 1)]
    write(path, rows, ["Name", "num_params", "tokens", "loss"])
    with pytest.raises(UserError, match="row 5, column loss: 'nan'"):
        read(path, source="wandb")
    assert list(read(path, source="wandb", drop_failed=True).row) == [3, 7]
