"""One program on many hosts: JAX's own runtime, a process a host, and a clear line where it does not come up."""

from dataclasses import dataclass

import jax

from chinchilla_jax.config import require
from chinchilla_jax.errors import PeerLost
from chinchilla_jax.parallel import peers

LONGEST = 1_000_000  # seconds of patience, which clocks and waits can hold


@dataclass(frozen=True)
class Cluster:
    """How the processes of a run find one another; `auto` leaves it to the TPU pod, Slurm or MPI that started them."""

    auto: bool = False
    coordinator: str = ""
    processes: int = 0
    process: int = -1
    patience: float = peers.PATIENCE  # seconds without a sign of life from a process that are taken for its end

    def __post_init__(self):
        require(5 <= self.patience <= LONGEST, f"--peer-timeout {self.patience:g} must lie in [5, {LONGEST}] seconds")
        if self.coordinator or self.processes or self.process >= 0:
            require(
                bool(self.coordinator) and self.processes > 0 and 0 <= self.process < self.processes,
                "--coordinator HOST:PORT, --processes N and --process I (0 <= I < N) belong together",
            )
            host, _, port = self.coordinator.rpartition(":")
            known = bool(host) and port.isdecimal() and 0 < int(port) < 65536
            require(known, f"--coordinator {self.coordinator!r} must be HOST:PORT, with a port in [1, 65535]")


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
    # It would take SIGTERM from us, sees it a second late, and knows no other signal: `peers` has its protocol.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**found)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise PeerLost(f"the processes did not find one another ({reason}); check --coordinator") from error
    peers.start(cluster.patience)
