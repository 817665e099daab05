"""The objective that a config names."""

from collections.abc import Callable
from functools import partial

from chinchilla_jax.config import Config, require
from chinchilla_jax.objectives.attack import Attack
from chinchilla_jax.objectives.compose import composed
from chinchilla_jax.objectives.corruption import in_place
from chinchilla_jax.objectives.delayed import delayed
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.methods import METHODS
from chinchilla_jax.objectives.objective import WHOLE, Binding, Objective
from chinchilla_jax.objectives.terms import named


def language(config: Config, binding: Binding) -> Objective:
    """Dense next-token prediction over what trains."""
    return binding.bind(dense(config.model, config.objective))


Make = Callable[[Config, Binding], Objective]


def added(config: Config, attack: Attack) -> Objective:
    """What `config` adds to a base: a method that alters its pass, and all terms; a `UserError` where it cannot be."""
    cfg, base, kind = attack.cfg, attack.base, config.task.kind
    alter, found = None, named(attack)
    method = METHODS.get(cfg.method) if cfg.radius else None
    if method and cfg.delayed:
        alter, term = delayed(attack)
        found = [term]
    elif method:
        alter, found = method.alter and partial(method.alter, attack), [method.term(attack), *found]
    require(
        base.loss is not None or not (found or config.corruption.slopes),
        f"--adversarial.method, --adversarial.rdrop and --corruption.copies need a loss of tokens or labels, which "
        f"--task.kind {kind} has not; set them off",
    )
    compares = any(term.learns for term in found) or (method and (cfg.loss != "ce" or cfg.method == "softmax_margin"))
    require(
        base.table is not None or not compares,
        f"--adversarial.method {cfg.method} compares predictions, which --task.kind {kind} has no measure for; take "
        "fgm, pgd, noise or freelb with --adversarial.loss ce",
    )
    return composed(base, config.model.d_model, found, alter) if found else base


def build(config: Config, binding: Binding = WHOLE, make: Make = language) -> Objective:
    """What `make` gives, with the attacks and the corrupted tokens that `config` names.

    `config` is one that `parallel.mesh.resolve` has settled. A radius of 0 is no attack, hence the plain objective.
    """
    base = make(config, binding)
    found = added(config, Attack(base, config, config.adversarial.settled(), binding.axes))
    noisy = config.corruption
    return in_place(base, found, config) if noisy.share and not noisy.copies else found
