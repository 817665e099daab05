"""tools/ablate.py: a late attack from plain's checkpoint is the run that it would have been; verdicts by rule."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax import config as configs
from tests import runs

TOOLS = Path(__file__).resolve().parent.parent / "tools"
LATE = {
    "adversarial.method": "fgm",
    "adversarial.delayed": True,
    "adversarial.fraction": 0.25,
    "adversarial.start": 0.6,
}


@pytest.fixture(scope="module")
def ablate():
    sys.path.insert(0, str(TOOLS))
    import ablate

    yield ablate
    sys.path.remove(str(TOOLS))


@pytest.mark.usefixtures("compiled_once")
def test_a_late_attack_goes_on_from_plain(ablate, whole_run, tiny_store, tmp_path, monkeypatch):
    base = dataclasses.replace(runs.config(whole_run), adversarial=configs.AdversarialConfig())
    monkeypatch.setattr(ablate, "configured", lambda settings, **more: configs.replace(base, {**more, **settings}))
    folder, flags = tmp_path / "forked", {name: str(value).lower() for name, value in LATE.items()}
    flags |= runs.SILENT
    ablate.fork(whole_run, ablate.Run("forked", "late", LATE, 0), folder)
    assert runs.saved(folder) == [10], "the first attack is at step 12, and step 11 gives its rows"
    code, said = runs.pretrain(folder, tiny_store, **flags)
    assert code == 0 and "resumed from step 10, verified" in said
    whole = runs.losses(runs.trained(tmp_path / "whole", tiny_store, **flags))
    forked = runs.losses(folder)
    assert min(forked) == 11
    np.testing.assert_allclose([forked[s] for s in range(11, 21)], [whole[s] for s in range(11, 21)], rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"train.steps": 10, **LATE}, {"sparsity.method": "rigl"}])
def test_what_is_another_run_from_the_start_does_not(ablate, settings, tmp_path):
    ablate.fork(tmp_path / "plain", ablate.Run("run", "other", settings, 0), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_verdict_is_the_bar_s(ablate):
    """A recipe earns its place by gap, clean loss and FLOPs together."""
    report = sys.modules["ablate_report"]

    def row(recipe, loss, gap, **more):
        losses = dict.fromkeys(report.RADII, loss + gap)
        figures = {"loss": loss, "clean": loss, "pgd20": losses, "density": 1.0, "flops": 1.0}
        right = {r: {"plain": [0.3, 0.01], "mixture": [0.25, 0.01]} for r in report.RADII}
        return {"recipe": recipe, "seed": 0, "settings": {}, "radius": None, "accuracy": right, **figures, **more}

    plain = [row("plain", 3.0, 8.0)]
    for error, beats in ((0.01, True), (0.03, False)):  # 0.05 more, against two standard errors of the difference
        right = {r: {"plain": [0.3, error], "mixture": [0.25, 0.0]} for r in report.RADII}
        assert report.Group("fgm", [row("fgm", 3.0, 2.0, radius="0.2", accuracy=right)], plain).beats_mixture == beats
    assert not report.Group("fgm", [row("fgm", 3.0, 2.0, radius="0.2", accuracy={})], plain).beats_mixture
    cases = [(3.01, 2.0, 1.0, True), (3.03, 2.0, 1.0, False), (3.01, 5.0, 1.0, False), (3.01, 2.0, 1.125, False)]
    for loss, gap, flops, earns in cases:
        group = report.Group("fgm", [row("fgm", loss, gap, radius="0.2", flops=flops)], plain)
        assert ("earns its place" in report.of_attack(group, [])) == earns
        assert group.closed == pytest.approx(1 - gap / 8)
    sparse = report.Group("m", [row("m", 3.1, 8.0, density=0.25, settings={"sparsity.method": "magnitude"})], plain)
    for other, word in ((3.2, "below"), (3.05, "above")):
        dense = report.Group("dense-0.53", [row("dense-0.53", other, 8.0)], plain)
        assert word in report.of_zeros(sparse, [dense])
    made = {"density": 0.25, "settings": {"sparsity.method": "magnitude"}}
    twice = report.Group("m", [row("m", 3.1, 8.0, **made), row("m", 3.3, 8.0, seed=1, **made)], plain)
    others = report.Group("dense-0.53", [row("dense", loss, 8.0, seed=n) for n, loss in enumerate((3.2, 3.28))], plain)
    assert twice.over == pytest.approx(0.1), "plain has seed 0 alone"
    assert "0.040 nats below dense-0.53" in report.of_zeros(twice, [others])
    assert "inside two standard errors" in report.of_zeros(twice, [others])
    assert report.verdict([-0.1, -0.11, -0.12]) == "**better**" and report.verdict([0.1, 0.11, 0.12]) == "worse"
    assert "(-0.100, +0.020)" in report.of_zeros(twice, [others])


def test_rivals_are_compared_at_the_same_radius(ablate):
    """Half of the gap by the square of what is closed there, and not where too little is."""
    report = sys.modules["ablate_report"]

    def group(name, closed, over, radius="0.5"):
        losses = {r: 3.0 + over + 8.0 * (1 - share) for r, share in zip(report.RADII, closed)}
        run = {"recipe": name, "seed": 0, "settings": {}, "radius": radius, "loss": 3.0 + over, "flops": 1.0}
        return report.Group(name, [run | {"clean": 3.0 + over, "pgd20": losses, "density": 1.0}], plain)

    plain = [{"seed": 0, "loss": 3.0, "clean": 3.0, "pgd20": dict.fromkeys(report.RADII, 11.0)}]
    wide = group("wide", (0.1, 0.2, 0.25, 0.25), 0.02)
    narrow = group("narrow", (0.5, 0.5, 0.4, 0.06), 0.02, "0.1")
    assert "cost about 0.080 this way." in report.of_attack(wide, [narrow]), "6 % closed say nothing"
    assert "cost about 0.020 this way." in report.of_attack(narrow, [wide])
    weak = group("weak", (0.1, 0.1, 0.1, 0.1), 0.01, "0.1")
    assert report.of_attack(weak, [narrow]).endswith("no default; half of the gap would cost about 0.020 with narrow.")


def test_equal_compute_is_read_off_plain_runs_of_more_steps(ablate):
    report = sys.modules["ablate_report"]

    def over(flops):
        run = {"recipe": "fgm", "seed": 0, "settings": {}, "radius": "0.2", "loss": 3.0, "flops": flops, "clean": 3.0}
        group = report.Group("fgm", [run | {"pgd20": dict.fromkeys(report.RADII, 9.0)}], plain)
        return group.against([(4.0, -0.2), (1.0, 0.0), (0.5, 0.4), (16.0, -0.3)])

    plain = [{"seed": 0, "loss": 3.0, "clean": 3.0, "pgd20": dict.fromkeys(report.RADII, 9.0)}]
    assert over(2.0) == pytest.approx(0.1), "halfway between one and four plain runs in the logarithm"
    assert over(8.0) == pytest.approx(0.25)
    assert over(1.01) is None, "equal steps are equal compute"
    assert over(17.0) is None, "no plain run is as long"


def test_a_report_keeps_the_runs_that_are_gone(ablate, tmp_path, capsys):
    """From one machine to the next; not where the recipe has other settings by now."""
    report = sys.modules["ablate_report"]
    wanted = [ablate.Run(f"{name}-s0", name, settings, 0) for name, settings in (("plain", {}), ("fgm", LATE))]
    for there, folder in zip(wanted, ("first", "second")):
        finished(tmp_path / folder / there.name)
        report.write(tmp_path / folder, wanted, tmp_path / "out")
        said = capsys.readouterr().out
    kept = json.loads((tmp_path / "out/ablation.json").read_text())
    assert [row["run"] for row in kept["rows"]] == ["plain-s0", "fgm-s0"] and kept["missing"] == []
    assert "1 of 2 runs are not in" in said
    with pytest.raises(SystemExit) as ended:
        report.write(tmp_path / "second", wanted, tmp_path / "elsewhere")
    assert ended.value.code == 78 and "run --only plain-s0" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()
    finished(tmp_path / "later/plain-s0", b"another text", loss=4.0)
    finished(tmp_path / "later/fgm-s0", b"another text", loss=4.5)
    report.write(tmp_path / "later", wanted, tmp_path / "out")
    rows = json.loads((tmp_path / "out/ablation.json").read_text())["rows"]
    assert [(row["run"], row["loss"]) for row in rows] == [
        ("plain-s0", 3.0), ("plain-s0", 4.0), ("fgm-s0", 3.0), ("fgm-s0", 4.5)
    ]  # fmt: skip
    assert "| fgm | 2 | A B | 3.0000 | +0.2500" in (tmp_path / "out/README.md").read_text()
    other = [wanted[0], wanted[1]._replace(settings={**LATE, "adversarial.fraction": 0.5})]
    report.write(tmp_path / "nothing", other, tmp_path / "out")
    assert json.loads((tmp_path / "out/ablation.json").read_text())["missing"] == ["fgm-s0"]


def finished(folder, tokenizer=b"a text", loss=3.0):
    """What a run leaves for the report."""
    radii = dict.fromkeys(("0.05", "0.1", "0.2", "0.5"), 4.0)
    attack = {"clean": 3.0, **dict.fromkeys(("rand", "fgm", "pgd5", "pgd20", "ordered"), radii), "typo": {"0.05": 1.0}}
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps({"loss_nats_per_token": loss, "bits_per_byte": 1.0}))
    (folder / "attack.json").write_text(json.dumps(attack))
    (folder / "tokenizer.model").write_bytes(tokenizer)
    (folder / "timing.jsonl").write_text(json.dumps({"step": 10, "step_ms": 5.0}) + "\n")
