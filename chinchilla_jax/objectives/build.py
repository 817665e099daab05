"""The objective that a config names."""

from collections.abc import Callable

from chinchilla_jax.config import Config, require
from chinchilla_jax.objectives import exclusive, terms
from chinchilla_jax.objectives.attack import Attack
from chinchilla_jax.objectives.corruption import in_place
from chinchilla_jax.objectives.delayed import delayed
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.objective import WHOLE, Binding, Objective


def language(config: Config, binding: Binding) -> Objective:
    """Dense next-token prediction over what trains."""
    return binding.bind(dense(config.model, config.objective))


Make = Callable[[Config, Binding], Objective]


def added(config: Config, attack: Attack) -> Objective:
    """What `config` adds to a base: a method that stands alone, or all terms; a `UserError` where it cannot be."""
    cfg, base, kind = attack.cfg, attack.base, config.task.kind
    alone = cfg.radius > 0 and cfg.alone
    found = [] if alone else terms.of(attack)
    require(
        base.loss is not None or not (alone or found or config.corruption.slopes),
        f"--adversarial.method, --adversarial.rdrop and --corruption.copies need a loss of tokens or labels, which "
        f"--task.kind {kind} has not; set them off",
    )
    compares = any(term.learns for term in found) or (
        cfg.method != "off" and cfg.radius > 0 and (cfg.loss != "ce" or cfg.method == "softmax_margin")
    )
    require(
        base.table is not None or not compares,
        f"--adversarial.method {cfg.method} compares predictions, which --task.kind {kind} has no measure for; take "
        "fgm, pgd, noise or freelb with --adversarial.loss ce",
    )
    if alone:
        return delayed(attack) if cfg.delayed else exclusive.made(attack)
    return terms.summed(attack, found) if found else base


def build(config: Config, binding: Binding = WHOLE, make: Make = language) -> Objective:
    """What `make` gives, with the attacks and the corrupted tokens that `config` names.

    `config` is one that `parallel.mesh.resolve` has settled. A radius of 0 is no attack, hence the plain objective.
    """
    base = make(config, binding)
    found = added(config, Attack(base, config, config.adversarial.settled(), binding.axes))
    noisy = config.corruption
    return in_place(base, found, config) if noisy.share and not noisy.copies else found
