"""The stages by name."""

from collections.abc import Callable

from chinchilla_jax.data.stages import encoding, job, merging, near, reading, sharding

STAGES: dict[str, Callable[[job.Job, dict], dict]] = {
    "read": reading.run,
    "merge": merging.run,
    "near": near.run,
    "settle": near.settle,
    "encode": encoding.run,
    "shard": sharding.run,
}


def run(root: str, version: str, stage: str, task: dict) -> dict:
    """Run a task of a stage of the job in `root`."""
    return STAGES[stage](job.load(root, version), task)
