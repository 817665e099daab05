"""What happens beside training now and then, such as a validation: it may fail, and training goes on."""

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chinchilla_jax.parallel import peers
from chinchilla_jax.parallel.collectives import from_first
from chinchilla_jax.training.metrics import Terminal, Writer, read
from chinchilla_jax.training.signals import Interrupts, Watchdog
from chinchilla_jax.training.state import TrainState


class Stopped(Exception):
    """A signal asked to stop while a hook was running."""


@dataclass(frozen=True)
class Hook:
    """Something done every so many steps and at the end; what `run(state, poll)` returns goes into metrics.jsonl.

    `poll()` is to be called now and then while it runs, equally often on all processes: it feeds the watchdog and
    raises `Stopped` on a signal.
    """

    every: int
    run: Callable[[TrainState, Callable[[], None]], dict[str, Any]]
    name: str = "hook"

    def due(self, done: int, steps: int) -> bool:
        """Whether it runs after `done` completed steps."""
        return done == steps or (self.every > 0 and done % self.every == 0)


@dataclass
class Hooks:
    """The hooks of a run and what they report to. `metrics` are the figures that they left last."""

    hooks: list[Hook]
    steps: int
    writer: Writer
    terminal: Terminal
    interrupts: Interrupts
    watchdog: Watchdog

    def due(self, done: int) -> list[Hook]:
        """What runs after `done` completed steps."""
        return [hook for hook in self.hooks if hook.due(done, self.steps)]

    def left_out(self, done: int) -> list[Hook]:
        """The hooks that were kept from running after step `done`: those that ran left a row each, in order."""
        rows = read(self.writer.run_dir / "metrics.jsonl")
        ran = from_first(sum(row["step"] == done and "loss" not in row for row in rows))
        return self.due(done)[ran:] if done else []

    def run(self, hooks: list[Hook], done: int, state: TrainState) -> tuple[dict[str, Any], str | None]:
        """Run them: their figures, and the name of the signal that came meanwhile, if one did."""

        def poll():
            self.watchdog.beat()
            if self.interrupts.stop():
                raise Stopped

        found: dict[str, Any] = {}
        for hook in hooks:
            self.watchdog.beat(long=True)  # it may have to compile
            began = time.perf_counter()
            try:
                row = hook.run(state, poll)
            except Stopped:
                return found, self.interrupts.stop()
            except Exception as error:
                if peers.current():
                    raise  # the other processes may be waiting in the middle of it
                row = self.warn(hook, done, error)
            self.writer.metrics({"step": done, **row})
            self.writer.event("evaluated", step=done, hook=hook.name, seconds=round(time.perf_counter() - began, 3))
            shown = {name: value for name, value in row.items() if not isinstance(value, dict)}
            self.terminal.say(" | ".join(f"{name} {show(value)}" for name, value in shown.items()))
            found |= row
        return found, None

    def warn(self, hook: Hook, done: int, error: Exception) -> dict[str, str]:
        """Make a failure known, which costs a figure and not the run; the row that stands for it."""
        traceback.print_exception(error)
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"warning: {hook.name} after step {done} failed ({why}); training goes on", file=sys.stderr, flush=True)
        self.writer.event("hook_failed", step=done, hook=hook.name, error=why)
        return {"hook_failed": hook.name}


def show(value: Any) -> str:
    """A metric for the terminal."""
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else f"\n{value}"
