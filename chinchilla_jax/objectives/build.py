"""The objective that a config names."""

from collections.abc import Callable
from typing import Any

from chinchilla_jax.config import Config, require
from chinchilla_jax.objectives.adversarial import adversarial, multiple
from chinchilla_jax.objectives.attack import Attack
from chinchilla_jax.objectives.bound import WHOLE, Binding
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.objective import Objective


def language(config: Config, binding: Binding) -> Objective:
    """Dense next-token prediction over what trains."""
    return binding.bind(dense(config.model, config.objective))


Make = Callable[[Config, Binding], Objective]


def build(config: Config, binding: Binding = WHOLE, make: Make = language) -> Objective:
    """What `make` gives, under attack where `config.adversarial` has a method and a radius.

    `config` is one that `parallel.mesh.resolve` has settled. A radius of 0 is no attack, hence the plain objective.
    """
    base = make(config, binding)
    attack = attack_of(config, base, binding.axes)
    return adversarial(attack) if attack else base


def attack_of(config: Config, base: Objective, axes: Any = ()) -> Attack | None:
    """What `config` attacks `base` with, if it does."""
    if config.adversarial.method == "off" or config.adversarial.radius == 0:
        return None
    require(
        base.loss is not None,
        f"--adversarial.method attacks a loss of tokens or labels, which --task.kind {config.task.kind} has not; "
        "set it off",
    )
    require(
        base.table is not None or config.adversarial.settled().loss == "ce",
        f"--adversarial.method {config.adversarial.method} compares predictions, which --task.kind {config.task.kind} "
        "has no measure for; take fgm, pgd, noise or freelb with --adversarial.loss ce",
    )
    return Attack(base, config, config.adversarial.settled(), axes)


def step_multiple(config: Config) -> float:
    """What a step costs over a whole run, in plain steps."""
    attack = attack_of(config, language(config, WHOLE))
    return multiple(attack) if attack else 1.0
