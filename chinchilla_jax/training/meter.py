"""How fast a run goes: from the moments at which its steps are seen to end."""

import time
from dataclasses import dataclass, field
from typing import Any

from chinchilla_jax.parallel import devices
from chinchilla_jax.scaling import counts
from chinchilla_jax.training.program import Program


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
