"""The objective that a config names."""

from chinchilla_jax.config import Config
from chinchilla_jax.objectives.adversarial import adversarial
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.objective import Objective


def build(config: Config) -> Objective:
    """Dense next-token prediction, under attack where `config.adversarial` has a method and a radius.

    `config` is one that `parallel.mesh.resolve` has settled. A radius of 0 is no attack, hence the plain objective.
    """
    base = dense(config.model, config.objective)
    attacked = config.adversarial.method != "off" and config.adversarial.radius > 0
    return adversarial(base, config) if attacked else base
