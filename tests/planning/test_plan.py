"""The planner: the optimum against closed forms and published figures, conditions, machines, configs."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import Config, from_dict
from chinchilla_jax.planning import asked as question
from chinchilla_jax.planning import plan as planner
from chinchilla_jax.planning.zeros import sparse_equivalent
from chinchilla_jax.scaling import lawfile, published
from chinchilla_jax.scaling.counts import sizes

LAW = published.published("epoch-exact").surface

ROOT = Path(__file__).resolve().parents[2]


def test_a_time_on_this_machine_is_measured():
    said = question.timed(600.0, math.inf, 1, SimpleNamespace())
    planned = planner.plan(Config(), said, lambda config: 1e11 / (6 * sizes(config.model).total))
    assert planned["realised"]["flops"] == pytest.approx(6e13, rel=0.05)


@pytest.fixture
def planned(tmp_path, capfd):
    """The plan of a command line on 4 chips."""
    from chinchilla_jax.__main__ import main

    def plan(line: str, budget: str = "--flops 1e18") -> dict:
        where = ["--chips", "v5e-4", "--json", "--out", str(tmp_path / "plan.json")]
        code = main(["plan", *budget.split(), *where, *line.split()])
        out, err = capfd.readouterr()
        assert code == 0, err
        return json.loads(out)

    return plan


def test_a_sparse_config_is_planned_as_one(planned):
    """Not with the loss of a dense model, whichever way the zeros were asked for; N:M is its own target."""
    dense, asked, set_ = map(planned, ("", "--sparsity 0.75", "--sparsity.method magnitude --sparsity.target 0.75"))
    assert set_["realised"] == asked["realised"] and set_["optimum"] == asked["optimum"]
    assert set_["config"] == asked["config"]
    assert asked["realised"]["loss"] > dense["realised"]["loss"] + 0.1
    half, n_m = planned("--sparsity 0.5"), planned("--sparsity.method n_m --sparsity.pattern 2:4")
    assert n_m["realised"] == half["realised"]


@pytest.mark.parametrize("line, share", [
    ("--sparsity 0.5 --sparsity.method n_m --sparsity.pattern 2:4", 0.5),
    ("--sparsity 0.9 --sparsity.method rigl", 0.9),
    ("--sparsity 0.9 --sparsity.target 0.9 --sparsity.method set", 0.9),
    ("--sparsity 0.7 --sparsity.pattern 3:10", 0.7),
    ("--sparsity 0.6 --sparsity.method l1 --sparsity.strength 1e-3", 0.6),
    ("--sparsity.method l1 --sparsity.strength 1e-3", 0.0),  # nobody knows
])  # fmt: skip
def test_a_method_that_is_named_stays(planned, line, share):
    found = planned(line)
    words = line.split()
    method = words[words.index("--sparsity.method") + 1] if "--sparsity.method" in words else "magnitude"
    assert found["config"]["sparsity"]["method"] == (method if "method" in line or share else "off")
    assert found["realised"]["sparsity"] == share
    early = ((0.0, 0.0),) if method in ("rigl", "set") else ()
    assert found["realised"]["dense_equivalent"] == sparse_equivalent(1.0, share, *early).value


@pytest.mark.parametrize("method, schedule", [("magnitude", (0.0, 0.1)), ("rigl", (0.0, 0.0))])
def test_when_zeros_come_bends_the_law(planned, method, schedule):
    """At 90 % the median is another law's if zeros come early; rigl has all of them from the start of its window."""
    found = planned(f"--sparsity 0.9 --sparsity.method {method} --sparsity.start 0 --sparsity.stop 0.1")
    worth = sparse_equivalent(1.0, 0.9, schedule).value
    assert found["realised"]["dense_equivalent"] == worth != sparse_equivalent(1.0, 0.9).value


FREELB = "--adversarial.method freelb --adversarial.start 0.1"


def test_an_attack_is_priced(planned):
    """Two passes in 90 % of the steps: 1.9 plain runs, in the seconds of a plan and in the tokens of a time."""
    plain, attacked = planned(""), planned(FREELB)
    assert attacked["realised"]["step_multiple"] == pytest.approx(1.9, rel=1e-3)
    assert attacked["price"]["seconds"] == pytest.approx(1.9 * plain["price"]["seconds"], rel=1e-3)
    assert planned(FREELB, "--hours 3")["price"]["seconds"] == pytest.approx(3 * 3600, rel=0.05)


def test_a_time_on_this_machine_measures_plain_steps():
    """The first steps, which are what is measured, are before the first attack or not: nothing must depend on it."""
    config = planner.settings.replace(Config(), {"adversarial.method": "freelb", "adversarial.start": 0.1})
    seen = []

    def measure(config):
        seen.append(config.adversarial.method)
        return 1e11 / (6 * sizes(config.model).total)

    planned = planner.plan(config, question.timed(600.0, math.inf, 1, SimpleNamespace()), measure)
    assert seen == ["off"] and planned["config"]["adversarial"]["method"] == "freelb"
    assert planned["realised"]["flops"] == pytest.approx(6e13 / 1.9, rel=0.05)


def test_the_table_says_what_zeros_and_attacks_make_of_a_run(planned):
    from chinchilla_jax.commands.plan import table

    said = table(planned(f"--sparsity 0.75 {FREELB}"))
    assert "what is attacked or replaced makes a step cost 1.900 plain ones" in said
    assert "75 % zeros by magnitude" in said and "0.54 of the size" in said
    assert "nobody knows" in table(planned("--sparsity.method l1 --sparsity.strength 1e-3"))
    assert "zeros" not in table(planned("")) and "attacked" not in table(planned(""))


MISTAKES = {
    "": "nothing to plan from",
    "--flops -3": "--flops",
    "--flops nan": "--flops",
    "--flops 1e21 --params 1e9 --tokens 1e9": "freedom",
    "--ratio 20": "--ratio goes with a budget",
    "--loss 1.5": "no compute reaches",
    "--loss 2 --params 1e9": "a loss is planned for alone",
    "--hours 3": "needs --chips",
    "--minutes 3 --chips v5e-16": "--hours",
    "--minutes 3 --hours 3 --chips v5e-16": "give one",
    "--flops 1e20 --law epoch-exakt": "did you mean epoch-exact",
    "--flops 1e20 --law none.json": "none.json",
    "--flops 1e20 --chips v5q-16": "known are",
    "--usd 100": "needs --chips",
    "--usd 100 --chips h100-8": "needs --price",
    "--usd 100 --chips h100-8 --price none.json": "--price none.json",
    "--flops 1e20 --experts 8 --law epoch-exact": "--experts",
    "--flops 1e20 --sparsity 1": "--sparsity",
    "--flops 1e20 --sparsity 0.5 --sparsity.target 0.75": "leave one out",
    "--flops 1e20 --sparsity 0.75 --sparsity.method n_m --sparsity.pattern 2:4": "2:4 makes 0.5",
    "--flops 1e20 --sparsity 0.75 --sparsity.method off": "another --sparsity.method",
    "--flops 1e20 --level 2": "--level",
    "--flops 1e20 --unique-tokens 0": "--unique-tokens",
    "--flops 1e26 --chips v5e-1": "take more",
    "--flops 1e20 --compile": "topology",
    "--flops 1e20 --chips h100-8 --price nan": "--price nan",
    "--flops 1e300 --chips h100-8": "more than any machine holds",
}


@pytest.mark.parametrize("line", MISTAKES, ids=str)
def test_mistakes_are_one_line(line, tmp_path, capfd):
    from chinchilla_jax.__main__ import main

    assert main(["plan", *line.split(), "--out", str(tmp_path / "plan.json")]) == 78
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and MISTAKES[line] in said
    assert not (tmp_path / "plan.json").exists()


def test_a_plan_trains_as_it_is(tiny_store, tmp_path, capfd):
    """From a budget to a finished run at the small end, by the commands."""
    from chinchilla_jax.__main__ import main

    path = tmp_path / "plan.json"
    plan = ["plan", "--params", "3e4", "--tokens", "1e4", "--data.store", str(tiny_store), "--out", str(path), "--json"]
    assert main([*plan, "--train.eval-batches", "2", "--train.sample-tokens", "0"]) == 0
    planned = json.loads(capfd.readouterr().out)
    assert planned["config"] == json.loads(path.read_text())["config"]
    assert planned["realised"]["tokens"] == pytest.approx(1e4, rel=0.05)
    code = main(["pretrain", "--plan", str(path), "--run-dir", str(tmp_path / "run")])
    assert code == 0, capfd.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == planned["realised"]["steps"]
    assert (tmp_path / "run/plan.json").read_text() == path.read_text()


HALVES = 10 ** np.arange(13, 26.1, 0.5)


@pytest.fixture(scope="module")
def ladder_of_plans():
    return [planner.plan(Config(), question.Asked({"flops": float(C)})) for C in HALVES]


def test_answers_are_coherent_over_thirteen_decades(ladder_of_plans):
    """One law across: N and D never fall, batch and steps change by less than 8 x a half-decade, rates are positive."""
    rows = []
    for C, found in zip(HALVES, ladder_of_plans):
        real, best, made = found["realised"], found["optimum"], from_dict(Config, found["config"])
        assert best["flops"]["value"] == pytest.approx(C) and 1e-5 < made.optimizer.peak_lr < 2e-2
        assert real["params_as_counted"] == pytest.approx(best["params"]["value"], rel=0.15)
        assert all(rule["peak_lr"] is None or rule["peak_lr"] > 0 for rule in found["hyperparameters"]["rules"])
        rows.append([best["params"]["value"], best["tokens"]["value"], real["parameters"], real["tokens"],
                     real["batch_tokens"], real["steps"]])  # fmt: skip
    changes = np.diff(np.log(rows), axis=0)
    assert (changes[:, :4] > 0).all() and (np.abs(changes[:, 4:]) < np.log(8)).all()


def test_laws_meet_where_they_are_joined():
    small, large = lawfile.shipped()["debian-cpu"], lawfile.default()
    for C, law in ((small.ranges["C"][1], small), (large.ranges["C"][0], large)):
        for factor in (1 - 1e-9, 1 + 1e-9):
            N = planner.joined(C * factor).surface.optimum(C)[0]
            assert pytest.approx(law.surface.optimum(C)[0], rel=1e-6) == N
    middle = math.sqrt(small.ranges["C"][1] * large.ranges["C"][0])
    sizes = [planner.joined(middle * f).surface.optimum(middle)[0] for f in (1 - 1e-9, 1 + 1e-9)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-6), "where the nearer law changes"
    joined = planner.joined(1e17)
    assert joined.surface.loss(*joined.surface.optimum(1e17)) == pytest.approx(
        large.surface.loss(*large.surface.optimum(1e17))
    )


@pytest.mark.parametrize("per_nd, count", [(9.0, "n_total"), (6.0, "n_active"), (4.5, "n_nonembed")])
def test_fit_and_plan_agree_whatever_the_accounting(tmp_path, capfd, monkeypatch, per_nd, count):
    """The whole way by the commands: a table of C = 9 N D, its law file, and one budget asked of both."""
    from chinchilla_jax.__main__ import main

    monkeypatch.setattr("chinchilla_jax.commands.fit_plots.draw", lambda *_: [])
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(3e7, 3e9, 6), np.geomspace(1e9, 5e10, 5)))
    L = LAW.loss(N, D) * np.exp(np.random.default_rng(1).laplace(0, 0.004, len(N)))
    rows = [f"{n!r},{d!r},{per_nd * n * d!r},{x!r}" for n, d, x in zip(*(v.tolist() for v in (N, D, L)))]
    (tmp_path / "runs.csv").write_text("\n".join([f"{count},tokens,flops_own,loss", *rows]))
    out = tmp_path / "out"
    assert (
        main(["fit", str(tmp_path / "runs.csv"), "--replicates", "20", "--flops", "1e22", "--out", str(out), "--json"])
        == 0
    )
    fitted = json.loads(capfd.readouterr().out)["answers"][0]
    asked = ["plan", "--law", str(out / "law.json"), "--flops", "1e22", "--out", str(tmp_path / "p.json"), "--json"]
    assert main(asked) == 0
    planned = json.loads(capfd.readouterr().out)
    for name, figure in planned["optimum"].items():
        assert figure["value"] == pytest.approx(fitted[name]["value"], rel=1e-9), name
        np.testing.assert_allclose(figure["interval"], fitted[name]["interval"], rtol=1e-9)
    assert planned["realised"]["flops"] == pytest.approx(1e22, rel=0.02)
    assert planned["level"] == 0.9


def test_money_is_a_time(planned):
    found = planned("", "--usd 100 --price 2.5")  # v5e-4: ten hours
    assert found["price"]["seconds"] == pytest.approx(36000, rel=0.05) and found["price"]["usd"] == pytest.approx(
        100, rel=0.05
    )


def test_the_users_own_use_of_the_machine_is_what_hours_and_money_follow(planned):
    machine = "--chips h100-8 --price 2 --mfu 0.2"
    for budget, hours in (("--hours 100", 100), ("--usd 500", 500 / 16)):
        price = planned(machine, budget)["price"]
        assert price["mfu"] == 0.2 and price["seconds"] == pytest.approx(3600 * hours, rel=0.01)
        assert price["usd"] == pytest.approx(16 * hours, rel=0.01)
    half, full = (planned(f"--chips h100-8 --mfu {mfu}")["price"]["seconds"] for mfu in (0.25, 0.5))
    assert half == pytest.approx(2 * full)


def test_a_shape_has_the_vocabulary_that_prepare_makes(planned):
    made = planned("--model.layers 3 --model.d-model 128 --model.heads 4 --model.d-ff 256")["config"]
    assert made["model"]["vocab_size"] == made["data"]["vocab_size"] == Config().data.vocab_size
    made = planned("--data.vocab-size 9000 --train.batch-size 3")
    assert made["config"]["model"]["vocab_size"] == made["config"]["data"]["vocab_size"] == 9000
    assert any("--train.batch-size 3 is not followed" in line for line in made["warnings"])


def test_experts_have_a_law_of_their_own(planned):
    one, eight = planned("--experts 1"), planned("--experts 8")
    assert eight["law"]["name"] == "mixture-of-experts" and eight["law"]["count"] == "n_active"
    assert eight["optimum"]["loss"]["value"] < one["optimum"]["loss"]["value"]


def test_large_shapes_share_keys_and_values(ladder_of_plans):
    for found in ladder_of_plans:
        model = found["config"]["model"]
        assert (model["kv_heads"] in (4, 8)) == (model["d_model"] >= 4096)


def test_the_plan_knows_its_text(tiny_store, tmp_path, capfd):
    from chinchilla_jax.__main__ import main

    manifest = json.loads((tiny_store / "manifest.json").read_text())
    unique = manifest["splits"]["train"]["tokens"]
    line = ["plan", "--params", "3e4", "--tokens", str(20 * unique), "--out", str(tmp_path / "p.json")]
    assert main([*line, "--data.store", str(tiny_store)]) == 0
    assert "read 20 times; repetition costs" in capfd.readouterr().out
    found = json.loads((tmp_path / "p.json").read_text())["text"]
    low, high = found["repetition_percent"]["interval"]
    assert found["unique_tokens"] == unique and 0 < low < found["repetition_percent"]["value"] < high
    assert main([*line, "--data.store", str(tmp_path / "none")]) == 0
    said = capfd.readouterr().out
    assert "name your text" in said and "--data.sources YOUR_TEXT" in said and "hakespeare" not in said
    assert said.splitlines()[-1].count(f"--data.store {tmp_path / 'none'}") == 2, "one store, prepared and trained on"
    assert main(line) == 0
    assert capfd.readouterr().out.splitlines()[-1].count("--data.store data/planned") == 2


def test_a_named_law_keeps_its_recipe(tmp_path, capfd):
    """The run that was predicted before it was trained (docs/scaling): shape, batch, window, rate and warm-up."""
    from chinchilla_jax.__main__ import main

    before = json.loads((ROOT / "docs/scaling/prediction_config.json").read_text())
    line = ["plan", "--law", "debian-cpu", "--flops", "9.5e13", "--out", str(tmp_path / "p.json")]
    assert main(line) == 0
    assert "leaves" not in capfd.readouterr().out
    made = json.loads((tmp_path / "p.json").read_text())["config"]
    for section in ("model", "optimizer"):
        assert {k: made[section][k] for k in before[section]} == before[section]
    for name in ("steps", "seq_len", "batch_size"):
        assert made["train"][name] == before["train"][name]
    assert made["data"]["vocab_size"] == before["data"]["vocab_size"]
    assert main([*line, "--train.seq-len", "256", "--train.batch-size", "16"]) == 0
    said = capfd.readouterr().out
    assert "leaves the law's recipe: train.seq_len 128 -> 256" in said and "train.batch_size 8 -> 16" in said


def test_the_plan_knows_its_text_by_source(tmp_path):
    from chinchilla_jax.commands.plan import by_source
    from chinchilla_jax.config import Config, replace

    sources = [{"name": "a", "tokens": 1000}, {"name": "b", "tokens": 3000}]
    manifest = {"splits": {"train": {"sources": sources}}, "settings": {"weights": []}, "tokenizer": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    config = replace(Config(), {"data.store": str(tmp_path)})
    assert [(s["share"], s["epochs"]) for s in by_source(config, 8000)] == [(0.25, 2), (0.75, 2)]
    mixed = by_source(replace(config, {"data.weights": (0.5, 0.5)}), 8000)
    assert [(s["share"], s["epochs"], s["unique_tokens"]) for s in mixed] == [(0.5, 4, 1000), (0.5, 4 / 3, 3000)]
    assert by_source(Config(), 8000) == []


def test_text_that_is_read_often_gets_what_was_measured_best(planned):
    """On where it was measured to gain; not on fresh text, nor against the command line or a law's recipe."""
    fresh = planned("")
    assert fresh["advice"] is None and not fresh["config"]["train"]["shift_windows"]
    tokens = fresh["realised"]["tokens"]

    def read(times, more=""):
        found = planned(f"--unique-tokens {tokens / times:.0f} {more}")
        if found["advice"]:
            assert found["advice"]["readings"] == pytest.approx(found["text"]["epochs"], rel=1e-6)
            assert found["config"]["train"]["shift_windows"] == found["advice"]["train.shift_windows"]
            assert found["config"]["optimizer"]["weight_decay"] == found["advice"]["optimizer.weight_decay"]
        return found

    often, seldom = read(60)["advice"], read(3)["advice"]
    assert (often["train.shift_windows"], often["optimizer.weight_decay"]) == (True, 1.0) and "is on" in often["said"]
    assert (seldom["train.shift_windows"], seldom["optimizer.weight_decay"]) == (True, 0.1)
    for line in ("--train.shift-windows false", "--optimizer.weight-decay 0.1", "--corruption.share 0.1"):
        found = read(60, line)
        assert found["advice"] is None and not found["config"]["train"]["shift_windows"]
        assert found["config"]["optimizer"]["weight_decay"] == 0.1


def test_a_law_whose_recipe_is_kept_is_not_said_to_be_changed():
    config = planner.settings.replace(Config(), {"model.vocab_size": 512})
    said = question.Asked({"flops": 1e13}, unique_tokens=1e5, law="debian-cpu")
    found = planner.plan(config, said)
    assert not found["config"]["train"]["shift_windows"] and not found["advice"]["train.shift_windows"]
    assert "would gain" in found["advice"]["said"] and "is on" not in found["advice"]["said"]


def test_the_length_follows_what_is_advised(monkeypatch):
    """Advice that makes a step twice as long halves the steps of a budget of time."""
    twice, more = {"corruption.share": 0.1, "corruption.copies": 1.0}, {}
    monkeypatch.setattr(planner, "advised", lambda made, *_: (planner.settings.replace(made, more), None))
    steps = {}
    for name in ("plain", "twice"):
        more |= twice if name == "twice" else {}
        said = question.timed(600.0, 1e5, 1, SimpleNamespace())
        planned = planner.plan(Config(), said, lambda config: 1e11 / (6 * sizes(config.model).total))
        steps[name] = planned["config"]["train"]["steps"]
        assert planned["realised"]["step_multiple"] == pytest.approx(1 + (name == "twice"))
    assert steps["twice"] == pytest.approx(steps["plain"] / 2, rel=0.01)
