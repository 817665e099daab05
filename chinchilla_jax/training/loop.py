"""The training program, top to bottom: data, program, state, compile, loop."""

import contextlib
import functools
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chinchilla_jax.config import Config, TrainConfig
from chinchilla_jax.data.batches import Batches, of_text
from chinchilla_jax.data.loader import prefetch
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import Diverged, Preempted
from chinchilla_jax.model import packed
from chinchilla_jax.parallel import peers
from chinchilla_jax.parallel.collectives import from_first
from chinchilla_jax.planning.attacks import priced
from chinchilla_jax.training import mirror, resume, start
from chinchilla_jax.training.checkpoint import Checkpoints
from chinchilla_jax.training.hooks import Hook, Hooks
from chinchilla_jax.training.load import base_of
from chinchilla_jax.training.meter import Meter
from chinchilla_jax.training.metrics import Terminal, Writer, duration, live_line
from chinchilla_jax.training.program import Program, check_memory, cost
from chinchilla_jax.training.signals import Interrupts, Watchdog
from chinchilla_jax.training.state import TrainState
from chinchilla_jax.types import Batch


def pretrain(
    config: Config,
    run_dir: Path,
    store: TokenStore,
    make_hooks: Callable[[Program, TokenStore], list[Hook]],
    terminal: Terminal,
    *,
    allow_changes: bool = False,
    alarm: Callable[[int], str | None] = lambda done: None,
    make_batches: Callable[[TokenStore, TrainConfig], Batches] = of_text,
    enough: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train to the last step of `config`, going on from the newest checkpoint in `run_dir` that verifies.

    Returns the last metrics; `enough()`, asked after hooks, ends the run early. Raises `Preempted` after a signal, or
    where `alarm(completed steps)` returns a word, and `Diverged` after too many bad steps in a row, the last completed
    step being saved in all cases.
    """
    began = time.time()
    batches = make_batches(store, config.train)
    program = Program(config, base=base_of(config, run_dir), documents=batches.documents)
    resume.check_config(run_dir, config, allow_changes)
    meta = resume.meta(config, store, program.config.model.dtype) | program.base_facts()
    with contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        watchdog = stack.enter_context(Watchdog())
        before = functools.partial(mirror.send, run_dir)
        checkpoints = stack.enter_context(
            Checkpoints(mirror.checkpoints(run_dir), config.checkpoint, meta=meta, before=before)
        )
        stack.push(tell_the_others)  # first of all that an error runs through
        reading = time.time()
        restored = start.find(program, checkpoints, meta, terminal.say)
        read_s = time.time() - reading
        over = restored and (restored.step >= config.train.steps or enough())
        if over and from_first(resume.ended(run_dir, restored.step)):
            steps = config.train.steps
            early = f"ended early with step {restored.step} of its {steps}"
            terminal.say(
                f"the run {early if restored.step < steps else f'has all of its {steps} steps'}; nothing to do"
            )
            return resume.last_metrics(run_dir)
        done = restored.step if restored else 0
        first = jax.process_index() == 0
        writer = Writer(run_dir, done, wandb=config.train.wandb, active=first, config=meta["config"])
        stack.callback(writer.close)
        writer.event("begin", time=round(began, 3))
        if restored:
            writer.event("restored", step=done, seconds=round(read_s, 3))
        if first:
            resume.write_run(run_dir, config, store.path)
        hooks = Hooks(make_hooks(program, store), config.train.steps, writer, terminal, interrupts, watchdog)
        run = Run(program, batches, checkpoints, writer, terminal, interrupts, watchdog, alarm, hooks, enough)
        if done < config.train.steps:
            run.compile(done)  # and refuse what does not fit, before the state takes its room
        return run.go(start.state(program, restored, run_dir, writer))


def tell_the_others(kind, error: BaseException | None, trace) -> None:
    """An exit of a `with` block that makes an error known before anything that may wait."""
    if error is not None and (others := peers.current()):
        others.failed(error)


@dataclass(frozen=True)
class Due:
    """What follows a step: a checkpoint, hooks, and the end by a signal."""

    save: bool
    hooks: list[Hook]
    signal: str | None

    @property
    def anything(self) -> bool:
        """Whether the loop stands still for it."""
        return bool(self.save or self.hooks or self.signal)


@dataclass
class Run:
    """The loop and what it needs: first `compile`, then `go`."""

    program: Program
    batches: Batches
    checkpoints: Checkpoints
    writer: Writer
    terminal: Terminal
    interrupts: Interrupts
    watchdog: Watchdog
    alarm: Callable[[int], str | None]
    hooks: Hooks
    enough: Callable[[], bool]
    steps: dict[int, Any] = field(default_factory=dict)  # the compiled step by rows of a batch
    # Where the loop stands.
    begun: int = 0  # steps that were done before this process
    done: int = 0  # steps that were dispatched, those included
    pending: list[tuple[int, dict]] = field(default_factory=list)  # steps whose metrics were not read yet, with these
    metrics: dict[str, Any] = field(default_factory=dict)  # the last that were read, hooks' figures with them
    bad: int = 0  # steps in a row that were bad; stands still once they are too many
    tracing: bool = False
    meter: Meter = field(init=False)

    def compile(self, done: int) -> None:
        """Compile the step of every batch size after `done` steps, and say what it costs before anything is spent."""
        train = self.program.config.train
        changes = (done, *dict(train.batch_ramp))
        for rows in sorted({self.batches.batch_rows(step) for step in changes if done <= step < train.steps}):
            began = time.perf_counter()
            self.steps[rows] = self.program.step(rows)
            seconds = time.perf_counter() - began
            self.writer.event("compiled", rows=rows, seconds=round(seconds, 2))
            figures = cost(self.program, self.steps[rows])
            check_memory(self.program, figures["memory_bytes"])
            self.terminal.say(
                f"compiled batches of {rows} windows in {seconds:.1f} s: "
                f"{figures['memory_bytes'] / 1e9:.2f} GB a device, "
                f"{rows * train.seq_len * figures['flops_per_token']:.3g} FLOPs a step"
            )
        if figures["step_multiple"] > 1:  # this and the time are the whole run's, whatever the batch size
            self.terminal.say(priced(figures["step_multiple"]))
        if whole := figures["expected_seconds"]:
            self.terminal.say(f"expected time of the whole run: about {duration(whole)}")
            self.watchdog.floor = max(self.watchdog.floor, 20 * whole / train.steps)

    def go(self, state: TrainState) -> dict[str, Any]:
        """Every step that is left. Metrics are read one step late, so that the device never waits for the host."""
        self.begun = self.done = int(state.step)
        self.meter = Meter(self.program)
        self.writer.event("start", step=self.done, devices=self.program.mesh.size)
        self.watchdog.beat(long=True)  # the first batch may never come
        enough = self.evaluate(state, Due(True, self.hooks.left_out(self.done), None))
        last = self.done if enough else self.program.config.train.steps
        with contextlib.ExitStack() as stack:
            feed = stack.enter_context(contextlib.closing(prefetch(self.batch, self.done, last)))
            stack.callback(self.end_profile)
            stack.push(tell_the_others)
            for batch in feed:
                state = self.advance(state, batch)
                due = self.due()
                self.report(feed.waited, due)
                self.save(state, due)
                if self.evaluate(state, due):
                    break
        self.watchdog.beat(long=True)
        self.checkpoints.wait()
        self.writer.event("end", step=self.done)
        return self.metrics

    def advance(self, state: TrainState, batch: Batch) -> TrainState:
        """Dispatch a step; its metrics are pending."""
        self.profile(state)
        state, metrics = self.steps[self.batches.batch_rows(self.done)](state, batch, *self.program.beside)
        self.done += 1
        self.pending.append((self.done, metrics))
        if self.done == self.begun + 1:
            gc.collect()
            gc.freeze()  # what exists by now lives to the end; scanning it again only makes pauses
        return state

    def due(self) -> Due:
        """What is to follow the step just dispatched; asked once a step, as all processes must."""
        config = self.program.config
        save = self.done % config.checkpoint.every == 0 or self.done == config.train.steps
        return Due(save, self.hooks.due(self.done), self.interrupts.stop() or self.alarm(self.done))

    def report(self, waited: float, due: Due) -> None:
        """Log every step but the last, of which the device may not be done; that one too if anything is to follow."""
        while len(self.pending) > (0 if due.anything or self.diverged else 1):
            self.log(self.pending.pop(0), waited)

    def batch(self, step: int):
        """The batch of `step` on the mesh; runs in the loader's thread."""
        most = self.program.config.model.documents
        return self.program.place(
            lambda rows: packed.limited(self.batches.at(step, rows), most), self.batches.batch_rows(step)
        )

    def log(self, pending: tuple[int, dict], waited: float) -> None:
        """Wait for a step's metrics, write them, and count the bad steps in a row."""
        step, found = pending
        values = {name: np.asarray(value).item() for name, value in jax.device_get(found).items()}
        self.watchdog.beat()
        weighs = self.program.objective.weighs
        timing = self.meter.row(step, values[weighs], waited, weighs)
        bad = values.pop("bad")
        row = {"step": step, **values, **self.batches.figures(values["loss"])}
        self.metrics = row
        train = self.program.config.train
        if step % train.log_every == 0 or step == train.steps:
            self.writer.metrics(row)
            self.writer.timing(timing)
        self.terminal.show(live_line(row, timing, train.steps), force=step == train.steps)
        if bad:
            self.writer.event("skipped", step=step)
        if not self.diverged:
            self.bad = bad

    @property
    def diverged(self) -> bool:
        """Whether there have been too many bad steps in a row."""
        return self.bad >= self.program.config.train.max_bad_steps

    def save(self, state: TrainState, due: Due) -> None:
        """Save if it is time to, and leave if a signal or too many bad steps ask for it."""
        leaving = bool(due.signal or self.diverged)
        if due.save or leaving:
            self.keep(state, wait=leaving)
        if self.diverged:
            self.writer.event("diverged", step=self.done)
            raise Diverged(self.damage(int(state.bad)))
        if due.signal:
            self.stop(due.signal)
        self.checkpoints.check()

    def keep(self, state: TrainState, *, wait: bool = False) -> None:
        """Make a checkpoint; with `wait` it is there when this returns."""
        self.watchdog.beat(long=True)
        began = time.perf_counter()
        self.checkpoints.save(self.done, state, wait=wait)
        self.writer.event("saved", step=self.done, seconds=round(time.perf_counter() - began, 3))
        self.meter.pause()

    def damage(self, bad: int) -> str:
        """What the user should know of parameters that gave `bad` bad steps since they last moved."""
        if not bad:  # the step that was dispatched before this was known
            return (
                f"{self.bad} steps in a row gave numbers that are not finite, and step {self.done}, which is saved, is "
                "finite again; the same command goes on from it, with more --train.max-bad-steps if that is usual"
            )
        applied = self.done - bad
        older = [step for step in self.checkpoints.steps() if step < applied]
        lower = "a lower --optimizer.peak-lr or --optimizer.clip-norm"
        back = (
            f", or remove the folders after {max(older)} in {self.checkpoints.folder} and go on from that "
            f"step with {lower} and --allow-changes"
            if older
            else ""
        )
        return (
            f"{self.bad} steps in a row gave numbers that are not finite, up to step {self.done}; the parameters of "
            f"step {applied}, saved as step {self.done}, failed on every batch since and may be ruined; start again in "
            f"another --run-dir with {lower}{back}"
        )

    def evaluate(self, state: TrainState, due: Due) -> bool:
        """Run the hooks that are due, after the save of the same step; whether the run has had enough by them.

        A signal meanwhile ends the run with the step saved, and so does the end.
        """
        if not due.hooks:
            return False
        found, signal = self.hooks.run(due.hooks, self.done, state)
        self.metrics |= found
        self.watchdog.beat(long=True)
        enough = not signal and self.enough()
        if not due.save and (signal or enough):
            self.keep(state)
        if signal:
            self.checkpoints.wait()
            self.stop(signal)
        self.meter.pause()
        return enough

    def stop(self, signal: str) -> None:
        """Leave after a step that is saved."""
        self.writer.event("stopped", step=self.done, signal=signal)
        raise Preempted(f"stopped by {signal} after step {self.done}, which is saved; the same command goes on from it")

    def profile(self, state: TrainState) -> None:
        """Open and close the profiler's window, before the next step."""
        train = self.program.config.train
        if self.done == train.profile_start:
            jax.profiler.start_trace(str(self.writer.run_dir / "profile"))
            self.tracing = True
        if self.done == train.profile_start + train.profile_steps:
            jax.block_until_ready(state)
            self.end_profile()

    def end_profile(self) -> None:
        """Close the profiler's window, also where the run ends inside it."""
        if self.tracing:
            self.tracing = False
            jax.profiler.stop_trace()
            self.writer.event("profiled", folder="profile")
