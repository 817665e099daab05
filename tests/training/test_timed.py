"""Runs that the clock ends: when the alarm rings, and that what comes out is an ordinary run."""

import json
import time

import numpy as np
import pytest

from chinchilla_jax import config as settings
from chinchilla_jax.__main__ import main
from chinchilla_jax.config import Config, OptimizerConfig, TrainConfig, replace, stored
from chinchilla_jax.disk import write_json
from chinchilla_jax.errors import UserError
from chinchilla_jax.objectives import corruption
from chinchilla_jax.optim.schedules import schedule
from chinchilla_jax.optim.window import window
from chinchilla_jax.training import timed
from chinchilla_jax.training.timed import DECAY, Alarm, cooldown
from tests import runs

TRUNK = Config(
    optimizer=OptimizerConfig(schedule="constant", warmup_steps=10, peak_lr=1.0), train=TrainConfig(steps=4000)
)


class Clock:
    """A clock that the test moves."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.mark.parametrize("slow", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("starting", [2.0, 10.0])
def test_the_alarm_leaves_the_cooldown_its_share(slow, starting):
    """Steps of 0.1 s that turn slower or faster after a while: the end is met to the speed of the last quarter."""
    clock = Clock()
    alarm = Alarm(180.0, closing_seconds=5.0, now=clock)
    clock.seconds = starting
    done = 0
    while not alarm(done := done + 1):
        clock.seconds += 0.1 * (slow if clock.seconds > 60 else 1.0)
    trained = clock.seconds - starting
    left = 180.0 - clock.seconds - alarm.reserve
    assert alarm.rang == done and left == pytest.approx(DECAY / (1 - DECAY) * trained, abs=0.5)
    assert alarm.remaining * 0.1 * slow == pytest.approx(left, abs=0.2)


def test_too_little_time_is_one_step_more():
    clock = Clock()
    alarm = Alarm(1.0, closing_seconds=0.0, now=clock)
    clock.seconds = 5.0
    rang = []
    for done in range(1, 5):
        clock.seconds += 0.1
        rang.append(alarm(done))
    assert rang == [None, None, None, "the clock"] and alarm.remaining == 1


def test_a_run_with_a_cooldown_of_its_own_begins_as_a_trunk(tmp_path):
    """Where the clock decides the cooldown, the share that was set says nothing."""
    asked = replace(TRUNK, {"optimizer.schedule": "wsd", "optimizer.decay_fraction": 0.5})
    assert timed._trunk(asked, tmp_path, asked).optimizer == TRUNK.optimizer


@pytest.mark.parametrize("done, remaining", [(1800, 600), (11, 1), (500, 3), (3, 20)])
def test_the_cooldown_is_the_trunk_up_to_where_it_leaves(done, remaining):
    run = cooldown(TRUNK, done, remaining)
    assert run.train.steps == max(done + remaining, 11)
    rates = np.array([schedule(run.optimizer, run.train.steps)(step) for step in range(run.train.steps)])
    trunk = np.array([schedule(TRUNK.optimizer, 4000)(step) for step in range(done)])
    np.testing.assert_allclose(rates[:done], trunk, rtol=1e-5)
    assert rates[-1] == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("rang, remaining, expected", [
    (760, 240, (250, 750, 670)),  # as planned
    (1900, 600, (250, 750, 670)),  # a faster machine
    (500, 150, (250, 649, 500)),  # a slower one: what is left of the window ends with the run
    (200, 60, (200, 259, 200)),
])  # fmt: skip
def test_attacks_and_zeros_keep_the_steps_that_were_planned(tmp_path, rang, remaining, expected):
    planned = replace(TRUNK, {
        "train.steps": 1000, "sparsity.method": "magnitude", "adversarial.method": "fgm", "adversarial.start": 0.67,
        "optimizer.schedule": "wsd",
    })  # fmt: skip

    def steps(config):
        when = window(config.sparsity, config.train.steps)
        return when.first, when.last, config.adversarial.first(config.train.steps)

    trunk = timed._trunk(planned, tmp_path, planned)
    assert steps(trunk) == pytest.approx(steps(planned), abs=1) and steps(planned)[:2] == (250, 750)
    assert steps(cooldown(trunk, rang, remaining)) == pytest.approx(expected, abs=1)
    off = timed._trunk(TRUNK, tmp_path, TRUNK)
    assert off.sparsity == TRUNK.sparsity and cooldown(off, rang, remaining).sparsity == TRUNK.sparsity


@pytest.mark.parametrize("planned, slower", [
    ({"ramp": 0.5}, {}), ({"start": 0.1, "ramp": 0.3, "stop": 0.6}, {}), ({}, {}),
    ({"ramp": 0.9}, {"share": 0.2 * 650 / 900, "ramp": 1.0}),
])  # fmt: skip
@pytest.mark.parametrize("rang, remaining", [(740, 260), (500, 150), (1900, 600)])
def test_tokens_are_replaced_as_was_planned(tmp_path, planned, slower, rang, remaining):
    """The same share at the same step, by trunk and cooldown; what is to last to the end lasts to any end."""
    made = {f"corruption.{name}": value for name, value in {"share": 0.2, **planned}.items()}
    config = replace(TRUNK, {"train.steps": 1000, **made})
    trunk = timed._trunk(config, tmp_path, config)
    run, steps = cooldown(trunk, rang, remaining), np.arange(min(1000, rang + remaining))
    asked = corruption.share(config, steps) * np.ones(len(steps))
    for one in (trunk, run):
        np.testing.assert_allclose(corruption.share(one, steps) * np.ones(len(steps)), asked, atol=1e-6)
    last = float(corruption.share(run, run.train.steps - 1))
    assert last == pytest.approx(0.0 if "stop" in planned else float(asked[-1]), abs=1e-3)
    for name, value in (slower if rang == 500 else {}).items():
        assert getattr(run.corruption, name) == pytest.approx(value)


@pytest.mark.parametrize("steps", range(47, 260, 7))
def test_a_step_of_the_trunk_is_the_same_step_of_the_run(steps):
    """Whatever the share comes to in floating point: what has happened before the clock rang has happened there."""
    for begin in range(0, 40):
        share = begin / TRUNK.train.steps
        trunk = replace(TRUNK, {
            "sparsity.method": "magnitude", "sparsity.start": share, "sparsity.stop": share,
            "adversarial.method": "fgm", "adversarial.start": share,
        })  # fmt: skip
        run = cooldown(trunk, 40, steps - 40)
        assert window(run.sparsity, run.train.steps)[:2] == window(trunk.sparsity, 4000)[:2] == (begin, begin)
        assert run.adversarial.first(run.train.steps) == trunk.adversarial.first(4000)


@pytest.mark.usefixtures("compiled_once")
def test_a_timed_run_is_the_run_of_its_config(tiny_store, tmp_path, monkeypatch, capfd):
    """The clock rings at once, compiling being longer than the time there is; the config trains the same again."""
    monkeypatch.setattr("chinchilla_jax.commands.pretrain.LEAST_MINUTES", 0.0)
    monkeypatch.setattr("chinchilla_jax.commands.plan.measured", lambda config: 1e5)
    shape = {
        name: value for name, value in runs.SETTINGS.items() if name.startswith(("model.", "train.log"))
    } | runs.SILENT
    line = [word for name, value in shape.items() for word in (f"--{name}", str(value))]
    store = ["--data.store", str(tiny_store)]
    assert main(["pretrain", "--minutes", "0.02", "--run-dir", str(tmp_path / "timed"), *store, *line]) == 0
    capfd.readouterr()
    config = json.loads((tmp_path / "timed/config.json").read_text())
    assert config["optimizer"]["schedule"] == "wsd" and config["train"]["steps"] >= 5
    assert json.loads((tmp_path / "timed/clock.json").read_text())["spent_s"] > 0
    assert json.loads((tmp_path / "timed/plan.json").read_text())["asked"]["seconds"] > 0
    again = ["--config", str(tmp_path / "timed/config.json"), "--run-dir", str(tmp_path / "again")]
    assert main(["pretrain", *again]) == 0
    first, second = (losses(tmp_path / name) for name in ("timed", "again"))
    assert first == second and len(first) > 3
    assert main(["pretrain", "--minutes", "0.02", "--run-dir", str(tmp_path / "timed"), *store]) == 0
    assert "nothing to do" in capfd.readouterr().out


def losses(run):
    """Training losses, step by step."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.mark.parametrize("minutes", [0.1, "nan", "inf"])
def test_a_time_too_short_or_without_an_end_is_refused(minutes, tiny_store, tmp_path):
    code, said = runs.call(
        "pretrain", **{"data.store": tiny_store, "run-dir": tmp_path / "run", "minutes": minutes, "model.layers": 1}
    )
    assert code == 78 and "--minutes" in said and not (tmp_path / "run" / "config.json").exists()


def test_a_run_that_has_begun_keeps_its_config(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    mine = replace(TRUNK, {"train.seed": 7})
    (folder / "config.json").write_text(json.dumps(timed.resume.settings.to_dict(mine)))
    assert timed._trunk(TRUNK, folder, mine) == mine


# What clock.json is for


def test_the_time_of_a_killed_attempt_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(timed, "TICK", 0.05)
    clock = timed.Clock(tmp_path, 60.0, time.monotonic() - 7, Config())
    assert clock.__enter__() == 0.0
    deadline = time.monotonic() + 10
    while timed.read_clock(tmp_path)["spent_s"] < 7.2 and time.monotonic() < deadline:
        time.sleep(0.02)
    with timed.Clock(tmp_path, 60.0, time.monotonic(), Config()) as spent:  # as after a kill: nobody has left it
        assert 7.2 <= spent < 17
    clock.__exit__()


def test_a_torn_clock_is_one_line(tmp_path):
    for content in ("{", "[]", '{"spent_s": null}'):
        (tmp_path / "clock.json").write_text(content)
        with pytest.raises(UserError, match="delete it"):
            timed.Clock(tmp_path, 60.0, 0.0, Config())


def test_flags_that_would_make_another_run_are_refused(tmp_path):
    """As without --minutes; harmless ones are followed."""
    asked = settings.replace(Config(), {"optimizer.peak_lr": 0.01})
    own = settings.replace(asked, {"model.layers": 3, "train.steps": 5000})
    write_json(tmp_path / "config.json", stored.to_json(own))
    write_json(tmp_path / "clock.json", {"spent_s": 1.0, "asked": settings.to_dict(asked)})
    assert timed._trunk(own, tmp_path, asked) == own == timed._trunk(own, tmp_path, own)
    kept = timed._trunk(own, tmp_path, settings.replace(asked, {"checkpoint.keep": 9}))
    assert kept == settings.replace(own, {"checkpoint.keep": 9})
    for start in (asked, own):
        with pytest.raises(UserError, match=r"optimizer.peak_lr was 0.01 and is 0.5"):
            timed._trunk(own, tmp_path, settings.replace(start, {"optimizer.peak_lr": 0.5}))
