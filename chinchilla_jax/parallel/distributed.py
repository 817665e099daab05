"""One program on many hosts: JAX's own runtime, a process a host, and a clear line where it does not come up."""

from dataclasses import dataclass

import jax

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError


@dataclass(frozen=True)
class Cluster:
    """How the processes of a run find one another; `auto` leaves it to the TPU pod, Slurm or MPI that started them."""

    auto: bool = False
    coordinator: str = ""
    processes: int = 0
    process: int = -1

    def __post_init__(self):
        if self.coordinator or self.processes or self.process >= 0:
            require(
                bool(self.coordinator) and self.processes > 0 and 0 <= self.process < self.processes,
                "--coordinator HOST:PORT, --processes N and --process I (0 <= I < N) belong together",
            )
            host, _, port = self.coordinator.rpartition(":")
            require(bool(host) and port.isdigit(), f"--coordinator {self.coordinator!r} must be HOST:PORT")


def initialize(cluster: Cluster) -> None:
    """Join the other processes; does nothing for a run of one process."""
    if not cluster.auto and not cluster.coordinator:
        return
    found = {}
    if cluster.coordinator:
        found = {
            "coordinator_address": cluster.coordinator,
            "num_processes": cluster.processes,
            "process_id": cluster.process,
        }
    try:
        jax.distributed.initialize(**found)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the processes did not find one another ({reason}); check --coordinator") from error
