"""The training program, top to bottom: data, program, state, compile, loop."""

import contextlib
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
from chinchilla_jax.parallel import devices, peers
from chinchilla_jax.parallel.collectives import from_first
from chinchilla_jax.scaling import counts
from chinchilla_jax.training import origin, resume
from chinchilla_jax.training.checkpoint import Checkpoints
from chinchilla_jax.training.hooks import Hook, Hooks
from chinchilla_jax.training.load import base_of, check_base
from chinchilla_jax.training.metrics import Terminal, Writer, duration, live_line
from chinchilla_jax.training.program import Program, check_memory, cost
from chinchilla_jax.training.signals import Interrupts, Watchdog
from chinchilla_jax.training.state import TrainState


@dataclass
class Meter:
    """Turns the moments at which steps are seen to end into throughput."""

    program: Program
    started: float = field(default_factory=time.perf_counter)
    waited: float = 0.0

    def __post_init__(self):
        config, device = self.program.config, devices.known(self.program.mesh.devices.flat[0])
        peak = device.flops * self.program.mesh.size if device else 0.0
        # Share of the peak that one token a second would be, in both conventions; nothing where the peak is unknown.
        self.mfu = {
            name: counts.flops_per_token(config.model, config.train.seq_len, causal) / peak
            for name, causal in (("mfu_causal", True), ("mfu_palm", False))
            if peak
        }

    def row(self, step: int, count: float, waited: float, weighs: str = "tokens") -> dict[str, Any]:
        """The timing row of a step of `count` tokens or records that has just ended; `waited` is the loader's total."""
        now = time.perf_counter()
        seconds, data = now - self.started, waited - self.waited
        self.started, self.waited = now, waited
        return {
            "step": step,
            "step_ms": 1e3 * seconds,
            f"{weighs}_per_s": count / seconds,
            "data_wait": min(1.0, data / seconds),
            "seconds_left": (self.program.config.train.steps - step) * seconds,
            **{name: share * count / seconds for name, share in self.mfu.items() if weighs == "tokens"},
        }

    def pause(self) -> None:
        """Leave out what happens between two steps, such as a validation."""
        self.started = time.perf_counter()


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
        checkpoints = stack.enter_context(Checkpoints(run_dir / "checkpoints", config.checkpoint, meta=meta))
        stack.push(tell_the_others)  # first of all that an error runs through
        reading = time.time()
        restored = checkpoints.restore(program.abstract)
        read_s = time.time() - reading
        check_base(restored.meta if restored else {}, program.base)
        resume.announce(restored, meta, dict(program.mesh.shape), terminal.say)
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
            run.compile()  # and refuse what does not fit, before the state takes its room
        return run.go(restored.state if restored else start(program, run_dir, writer))


def start(program: Program, run_dir: Path, writer: Writer) -> TrainState:
    """The state that a new run begins with: of fresh parameters, or from another run, which is written down."""
    state = program.initial()
    if program.base is not None:
        facts = program.base.facts
        writer.event("from", **facts)
        if jax.process_index() == 0:
            origin.inherit(run_dir, program.base.folder, facts)
        if not jax.tree.leaves(program.abstract_frozen):
            program.base.release()  # nothing of it is looked at again
    return state


def tell_the_others(kind, error: BaseException | None, trace) -> None:
    """An exit of a `with` block that makes an error known before anything that may wait."""
    if error is not None and (others := peers.current()):
        others.failed(error)


@dataclass
class Run:
    """The loop and what it needs; `go` is all there is to call."""

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
    steps: dict[int, Any] = field(default_factory=dict)
    bad: int = 0  # steps in a row that were bad; stands still once they are too many
    tracing: bool = False

    def compile(self) -> None:
        """Compile the step of every batch size of the run, and say what it costs before anything is spent."""
        train = self.program.config.train
        for rows in sorted({rows for start, rows in train.phases if start < train.steps}):
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
        if figures["step_multiple"] > 1:
            self.terminal.say(f"attacked rows make a step {figures['step_multiple']:.3f} plain ones over the whole run")
        if whole := figures["expected_seconds"]:
            self.terminal.say(f"expected time of the whole run: about {duration(whole)}")
            self.watchdog.floor = max(self.watchdog.floor, 20 * whole / train.steps)

    def go(self, state: TrainState) -> dict[str, Any]:
        """Every step that is left. Metrics are read one step late, so that the device never waits for the host."""
        steps, done = self.program.config.train.steps, int(state.step)
        begun, self.meter, self.metrics = done, Meter(self.program), {}
        self.writer.event("start", step=done, devices=self.program.mesh.size)
        self.watchdog.beat(long=True)  # the first batch may never come
        self.evaluate(self.hooks.left_out(done), done, state, saved=True)
        with contextlib.ExitStack() as stack:
            feed = stack.enter_context(contextlib.closing(prefetch(self.batch, done, steps)))
            stack.callback(self.end_profile)
            stack.push(tell_the_others)
            pending = None
            for batch in feed:
                self.profile(done, state)
                state, metrics = self.steps[self.batches.batch_rows(done)](state, batch, self.program.frozen)
                done += 1
                signal = self.interrupts.stop() or self.alarm(done)
                save = done % self.program.config.checkpoint.every == 0 or done == steps
                ready = self.hooks.due(done)
                self.log(pending, feed.waited)
                pending = done, metrics
                if save or ready or signal or self.diverged:
                    self.log(pending, feed.waited)
                    pending = None
                    self.save(done, state, due=save, signal=signal)
                    self.evaluate(ready, done, state, saved=save)
                    if ready and self.enough():
                        self.save(done, state, due=not save, signal=None)
                        break
                    self.meter.pause()
                self.checkpoints.check()
                if done == begun + 1:
                    gc.collect()
                    gc.freeze()  # what exists by now lives to the end; scanning it again only makes pauses
        self.watchdog.beat(long=True)
        self.checkpoints.wait()
        self.writer.event("end", step=done)
        return self.metrics

    def batch(self, step: int):
        """The batch of `step` on the mesh; runs in the loader's thread."""
        most = self.program.config.model.documents
        return self.program.place(
            lambda rows: packed.limited(self.batches.at(step, rows), most), self.batches.batch_rows(step)
        )

    def log(self, pending: tuple[int, dict] | None, waited: float) -> None:
        """Wait for a step's metrics, write them, and count the bad steps in a row."""
        if pending is None:
            return
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

    def save(self, done: int, state: TrainState, *, due: bool, signal: str | None) -> None:
        """Save if it is time to, and leave if a signal or too many bad steps ask for it."""
        leaving = bool(signal or self.diverged)
        if due or leaving:
            self.watchdog.beat(long=True)
            began = time.perf_counter()
            self.checkpoints.save(done, state, wait=leaving)
            self.writer.event("saved", step=done, seconds=round(time.perf_counter() - began, 3))
        if self.diverged:
            self.writer.event("diverged", step=done)
            raise Diverged(self.damage(done, done - int(state.bad)))
        if signal:
            self.stop(done, signal)

    def damage(self, done: int, applied: int) -> str:
        """What the user should know of the parameters of step `applied`, which gave bad steps only since then."""
        older = [step for step in self.checkpoints.steps() if step < applied]
        lower = "a lower --optimizer.peak-lr or --optimizer.clip-norm"
        back = (
            f", or remove the folders after {max(older)} in {self.writer.run_dir / 'checkpoints'} and go on from that "
            f"step with {lower} and --allow-changes"
            if older
            else ""
        )
        return (
            f"{self.bad} steps in a row gave numbers that are not finite, up to step {done}; the parameters of step "
            f"{applied}, saved as step {done}, failed on every batch since and may be ruined; start again in another "
            f"--run-dir with {lower}{back}"
        )

    def evaluate(self, hooks: list[Hook], done: int, state: TrainState, *, saved: bool) -> None:
        """Run hooks after the save of the same step; a signal meanwhile ends the run with step `done` saved."""
        found, signal = self.hooks.run(hooks, done, state)
        self.metrics |= found
        if hooks:
            self.watchdog.beat(long=True)
        if signal and saved:
            self.checkpoints.wait()
            self.stop(done, signal)
        elif signal:
            self.save(done, state, due=True, signal=signal)

    def stop(self, done: int, signal: str) -> None:
        """Leave after step `done`, which is saved."""
        self.writer.event("stopped", step=done, signal=signal)
        raise Preempted(f"stopped by {signal} after step {done}, which is saved; the same command goes on from it")

    def profile(self, done: int, state: TrainState) -> None:
        """Open and close the profiler's window, before step `done` + 1."""
        train = self.program.config.train
        if done == train.profile_start:
            jax.profiler.start_trace(str(self.writer.run_dir / "profile"))
            self.tracing = True
        if done == train.profile_start + train.profile_steps:
            jax.block_until_ready(state)
            self.end_profile()

    def end_profile(self) -> None:
        """Close the profiler's window, also where the run ends inside it."""
        if self.tracing:
            self.tracing = False
            jax.profiler.stop_trace()
            self.writer.event("profiled", folder="profile")
