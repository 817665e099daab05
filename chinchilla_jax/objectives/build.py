"""The objective that a config names."""

from chinchilla_jax.config import Config
from chinchilla_jax.objectives.adversarial import adversarial, multiple
from chinchilla_jax.objectives.attack import Attack
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.objective import Objective


def build(config: Config) -> Objective:
    """Dense next-token prediction, under attack where `config.adversarial` has a method and a radius.

    `config` is one that `parallel.mesh.resolve` has settled. A radius of 0 is no attack, hence the plain objective.
    """
    attack = attack_of(config)
    return adversarial(attack) if attack else dense(config.model, config.objective)


def attack_of(config: Config) -> Attack | None:
    """What `config` attacks with, if it does."""
    if config.adversarial.method == "off" or config.adversarial.radius == 0:
        return None
    return Attack(dense(config.model, config.objective), config, config.adversarial.settled())


def step_multiple(config: Config) -> float:
    """What a step costs over a whole run, in plain steps."""
    attack = attack_of(config)
    return multiple(attack) if attack else 1.0
