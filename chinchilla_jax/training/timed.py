"""A run that ends when the clock says so: a trunk at a constant rate, then a cooldown over the time that is left.

What comes out is an ordinary `wsd` run whose number of steps the clock has decided: the config in its run directory
trains the same parameters again, since both schedules agree up to the first step of the decay. Attacks and zeros begin
and end at the steps that were planned; only a window of zeros that the clock cuts short cannot be had again.
"""

import contextlib
import json
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from chinchilla_jax.config import Config, OptimizerConfig, differences, replace, require, to_dict
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.disk import write_json
from chinchilla_jax.errors import Preempted, UserError
from chinchilla_jax.training import resume
from chinchilla_jax.training.loop import pretrain
from chinchilla_jax.training.metrics import Terminal

DECAY = 0.25  # share of the training time that the rate decays over; 0.2 matches a cosine (Haegele et al. 2024)
# Getting ready again for the cooldown, and compiling validation and sample, in units of the trunk's own start.
RESTART, CLOSING = 1.2, 1.0
TRAINING_SHARE = 0.85  # of a run's time that is for steps, roughly: what a plan may count on
CLOSING_SHARE = 0.02  # of the time, for the last validation itself
CLOCK, TICK = "clock.json", 1.0  # seconds between two notes of the time
MARGIN = 4  # steps of a trunk over those that were planned: the clock ends it
# Settings that are shares of the whole run, and how each becomes a step.
SHARES = {
    **dict.fromkeys(("corruption.start", "corruption.ramp", "corruption.stop"), float),  # steps and parts of them
    **dict.fromkeys(("sparsity.start", "sparsity.stop"), round),
    "adversarial.start": math.ceil,
}


@dataclass
class Alarm:
    """Called after every step; rings once what is left of the time is what the cooldown needs."""

    deadline: float  # by `now`
    closing_seconds: float  # validation at the end
    now: Callable[[], float] = time.monotonic
    begun: float = field(init=False)
    first: float | None = None
    stamps: deque = field(default_factory=lambda: deque(maxlen=64))
    rang: int | None = None
    remaining: int = 0

    def __post_init__(self):
        self.begun = self.now()

    def __call__(self, done: int) -> str | None:
        """The word that stops the loop, or None."""
        moment = self.now()
        self.first = moment if self.first is None else self.first
        self.stamps.append(moment)
        if len(self.stamps) < 4:
            return None
        left = self.deadline - moment - self.reserve
        if left > DECAY / (1 - DECAY) * (moment - self.first):
            return None
        gaps = [b - a for a, b in zip(self.stamps, list(self.stamps)[1:])]
        self.rang, self.remaining = done, max(1, int(left / statistics.fmean(gaps)))
        return "the clock"

    @property
    def reserve(self) -> float:
        """Seconds that are not for steps: compiling anew, validation, the last sample and save."""
        start = (self.first or self.now()) - self.begun
        return (RESTART + CLOSING) * start + self.closing_seconds


def pretrain_for(
    seconds: float,
    began: float,
    config: Config,
    run_dir: Path,
    store: TokenStore,
    make_hooks: Callable,
    terminal: Terminal,
    asked: Config,
) -> dict[str, Any]:
    """Train so that the whole command, begun at monotonic time `began`, takes `seconds`; the last metrics.

    `config` says everything, the number of steps only roughly; `asked` is what it was made of. Interrupted, the same
    command goes on and the time that it had spent counts. Raises what `pretrain` raises.
    """
    require(jax.process_count() == 1, "--minutes times one process; give --train.steps to many")
    with Clock(run_dir, seconds, began, asked) as spent:
        config = _trunk(config, run_dir, asked)
        if config.optimizer.schedule == "constant":
            alarm = Alarm(began + seconds - spent, CLOSING_SHARE * seconds)
            terminal.say("the clock ends this run: steps and time left are shown as the most that they can be")
            try:
                return pretrain(config, run_dir, store, lambda *_: [], terminal, allow_changes=True, alarm=alarm)
            except Preempted:
                if alarm.rang is None:
                    raise
            config = cooldown(config, alarm.rang, alarm.remaining)
            terminal.say(f"cooling down from step {alarm.rang} to {config.train.steps}, when the time is up")
        return pretrain(config, run_dir, store, make_hooks, terminal, allow_changes=True)


class Clock:
    """clock.json: the time that a run has spent in all its attempts, and the settings that it was asked for.

    Entered, it gives the seconds of earlier attempts; a thread keeps the file up to date, since a kill asks nobody.
    """

    def __init__(self, run_dir: Path, seconds: float, began: float, asked: Config):
        self.path, self.seconds, self.began = run_dir / CLOCK, seconds, began
        found = read_clock(run_dir)
        self.spent = float(found.get("spent_s", 0.0))
        begun = (run_dir / "config.json").exists()  # by a version that kept no settings here
        self.asked = found.get("asked") or to_dict(resume.own_config(run_dir) if begun else asked)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="clock", daemon=True)

    def __enter__(self) -> float:
        self._write()
        self._thread.start()
        return self.spent

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()
        self._write()

    def _keep(self) -> None:
        while not self._ended.wait(TICK):
            self._write()

    def _write(self) -> None:
        spent = self.spent + time.monotonic() - self.began
        with contextlib.suppress(OSError):  # a full disk is told by what has to be written
            write_json(self.path, {"seconds": self.seconds, "spent_s": spent, "asked": self.asked})


def read_clock(run_dir: Path) -> dict[str, Any]:
    """What clock.json says; empty for a run that has not begun, a `UserError` for a file that says nothing."""
    path = run_dir / CLOCK
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        float(found["spent_s"])
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete it to count the time from now on, with --minutes as what is left"
        ) from error


def _trunk(config: Config, run_dir: Path, asked: Config) -> Config:
    """The run's own config where it has begun, with what may change; else `config` at a constant rate without an end.

    A setting that is neither what the run was asked for nor what it has, and would make it another run, is refused.
    """
    if (run_dir / "config.json").exists():
        own, now = resume.own_config(run_dir), to_dict(asked)
        first = read_clock(run_dir).get("asked", to_dict(own))
        new = differences(to_dict(own), now).keys() & differences(first, now).keys()
        changed = {name: pair for name, pair in differences(first, now).items() if name in new}
        resume.refuse_harmful(run_dir, changed, own, "choose another --run-dir, or leave them as they were")
        return replace(own, {name: value for name, (_, value) in changed.items()})
    constant = {"optimizer.schedule": "constant", "optimizer.decay_fraction": OptimizerConfig.decay_fraction}
    longer = {**constant, "train.steps": MARGIN * config.train.steps}  # the cooldown's share is the clock's to say
    return replace(config, longer | {name: share / MARGIN for name, share in _shares(config).items()})


def _shares(config: Config) -> dict[str, float]:
    """Those of SHARES that are in use; a stop of 1 is the end, whichever the clock gives."""
    used = {
        "adversarial": config.adversarial.on,
        "corruption": config.corruption.share > 0,
        "sparsity": config.sparsity.method != "off",
    }
    found = {name: name.split(".") for name in SHARES if name != "corruption.stop" or config.corruption.stop < 1}
    return {
        name: getattr(getattr(config, part).settled(), which) for name, (part, which) in found.items() if used[part]
    }


def cooldown(trunk: Config, done: int, remaining: int) -> Config:
    """The `wsd` run that equals `trunk` up to step `done` and decays over the `remaining` steps after it.

    What has not begun by then begins with the cooldown, and what has not ended ends with the run: a share of tokens
    that rises further than that is the one that it has come to.
    """
    warmup = trunk.optimizer.warmup_steps
    steps = max(done + remaining, warmup + 1)
    share = min(1.0, remaining / (steps - warmup))
    ends = {"optimizer.schedule": "wsd", "optimizer.decay_fraction": share, "train.steps": steps}
    for name, planned in _shares(trunk).items():
        latest = {"start": done, "stop": steps}.get(name.partition(".")[2], math.inf)
        step = min(SHARES[name](planned * trunk.train.steps), latest)
        whole = SHARES[name] is not float
        ends[name] = max(0.0, step - 0.25 * whole) / steps  # rounded or rounded up it is that step again
    return replace(trunk, ends | _risen(ends, trunk.corruption.share))


def _risen(ends: dict[str, float], share: float) -> dict[str, float]:
    """The share that a ramp has come to where tokens stop being replaced, and its ramp; it rises as fast."""
    ramp = ends.get("corruption.ramp", 0.0)
    left = ends.get("corruption.stop", 1.0) - ends.get("corruption.start", 0.0)
    return {"corruption.share": share * left / ramp, "corruption.ramp": left} if ramp > left else {}
