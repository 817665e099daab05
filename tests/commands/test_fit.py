"""The fit command: one JSON object, a folder with the law, one line for every fault."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy

from chinchilla_jax.__main__ import main
from chinchilla_jax.scaling import lawfile
from chinchilla_jax.scaling.law import Surface

LAW = Surface(np.log(406.4), np.log(410.7), np.log(1.69), 0.34, 0.28)


def write(path, broken=""):
    """Thirty isoFLOP runs with noise, as a trainer writes them."""
    C = np.repeat(np.geomspace(1e18, 1e20, 5), 6)
    N = LAW.optimum(C)[0] * np.tile(np.geomspace(0.2, 5, 6), 5)
    D = C / 6 / N
    loss = LAW.loss(N, D) * np.exp(np.random.default_rng(0).laplace(0, 0.002, 30))
    lines = [
        f"r{i},{n!r},{d!r},{c!r},{x!r},bpb"
        for i, (n, d, c, x) in enumerate(zip(*(v.tolist() for v in (N, D, C, loss))))
    ]
    path.write_text(
        "\n".join(["run_id,n_total,tokens,flops_6ND_total,loss,unit", *lines, *([broken] if broken else [])])
    )
    return str(path)


def test_json_and_folder(tmp_path, capsys):
    table, out = write(tmp_path / "runs.csv"), tmp_path / "out"
    argv = [
        "fit",
        table,
        "--out",
        str(out),
        "--replicates",
        "100",
        "--flops",
        "1e21",
        "1e22",
        "--name",
        "mine",
        "--json",
    ]
    assert main(argv) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["converged"] and said["clusters"] == 30 and said["law"]["unit"] == "bpb"
    low, high = said["answers"][0]["tokens_per_param"]["interval"]
    assert low < said["answers"][0]["tokens_per_param"]["value"] < high
    assert {
        "sensitivity",
        "rollout",
        "residuals",
        "approach_1",
        "approach_2",
        "standard_errors",
        "profile",
    } <= said.keys()
    assert len(said["approach_2"]["budgets"]) == 5
    names = {path.name for path in out.iterdir()}
    assert {"law.json", "fit.md", "isoflop.png", "contour.png", "ratio.png", "residuals.png", "rollout.png"} <= names
    law = lawfile.load(out / "law.json")
    assert (
        law.name == "mine"
        and law.forms[0].theta[3] == said["law"]["alpha"]
        and len(law.draws) == pytest.approx(100, abs=2)
    )
    page = (out / "fit.md").read_text()
    assert "## Other choices" in page and "predicted" in page and "## Residuals" in page
    assert said["wrote"][0] == str(out / "law.json") and "plan --law" in said["next"]


@pytest.mark.parametrize(
    ("flags", "broken", "message"),
    [
        ([], "r30,1e9,1e9,6e18,nan,bpb", "row 32, column loss: 'nan'"),
        ([], "r30,1e9,1e9,6e18,3.0,nats_token", "row 32, column unit: 'nats_token' beside 'bpb'"),
        (["--form", "cubic"], "", "--form cubic: one of mixture, chinchilla"),
        (["--objective", "huber"], "", "did you mean huber-log"),
        (["--delta", "0"], "", "--delta 0"),
        (["--columns", "loss"], "", "write NAME=VALUE"),
        (["--columns", "loss=Loss"], "", "no column 'Loss'"),
        (["--columns", "los=loss"], "", "nothing reads los (did you mean loss?)"),
        (["--seed", "-1"], "", "--seed -1"),
        (["--drop-outliers", "-1"], "", "--drop-outliers -1"),
        (["--level", "90"], "", "--level 90"),
        (["--flops", "-1"], "", "--flops"),
        (["--replicates", "5"], "", "--replicates 5"),
        (["--protocol", "bca"], "", "--protocol bca"),
        (["--unit", "nats_token"], "", "says bpb; leave the flag out"),
        (["--drop-outliers", "28"], "", "rows for 4 parameters of tied"),
    ],
    ids=str,
)
def test_faults_are_one_line(tmp_path, capsys, flags, broken, message):
    assert main(["fit", write(tmp_path / "runs.csv", broken), "--replicates", "20", *flags]) == 78
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_five_rows_write_a_report(tmp_path, capsys):
    """Fewer rows than Chinchilla's form has parameters: the forms of four give a law, and every picture is drawn."""
    N, D = np.geomspace(3e7, 3e9, 5), np.array([2e9, 5e10, 1e9, 2e10, 5e9])
    rows = [f"{n!r},{d!r},{x!r}" for n, d, x in zip(N.tolist(), D.tolist(), LAW.loss(N, D).tolist())]
    (tmp_path / "five.csv").write_text("\n".join(["n_total,tokens,loss", *rows]))
    assert main(["fit", str(tmp_path / "five.csv"), "--replicates", "20", "--out", str(tmp_path / "out")]) == 0
    assert {"tied", "kaplan"} == {one.form for one in lawfile.load(tmp_path / "out/law.json").forms}
    assert len(list((tmp_path / "out").glob("*.png"))) == 6 and "few for a bootstrap" in capsys.readouterr().out


def test_planner_where_numpy_and_scipy_are_all_there_is(tmp_path):
    """`pip install chinchilla_jax` without extras: an interpreter that sees no other package, and what it writes."""
    site, table, out = tmp_path / "site", write(tmp_path / "runs.csv"), tmp_path / "out"
    site.mkdir()
    for package in (np, scipy):
        for path in Path(package.__file__).parents[1].glob(f"{package.__name__}*"):
            (site / path.name).symlink_to(path)
    commands = [
        ["fit", table, "--out", str(out), "--replicates", "20"],
        ["plan", "--law", str(out / "law.json"), "--flops", "1e19", "--run-dir", str(tmp_path / "run")],
        ["compare", str(out / "law.json"), str(out / "law.json"), "--flops", "1e19"],
        ["sweep", "--next", "1", "--law", str(out / "law.json"), "--budget", "1e19"],
    ]
    root = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path[:0] = {[str(site), root]}\nfrom chinchilla_jax.__main__ import main\n"
    code += f"codes = [main(argv) for argv in {commands}]\nprint('CODES', codes, 'jax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-S", "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.endswith("CODES [0, 0, 0, 0] False\n"), ran.stderr
    assert sorted(path.name for path in out.iterdir()) == ["fit.md", "law.json"]
    assert (tmp_path / "run/plan.json").exists()
