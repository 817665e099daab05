"""The objective that a config names."""

from chinchilla_jax.config import Config
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.objective import Objective


def build(config: Config) -> Objective:
    """Dense next-token prediction; `config` is one that `parallel.mesh.resolve` has settled."""
    return dense(config.model, config.objective)
