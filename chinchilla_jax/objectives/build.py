"""The objective that a config names: one pass over all rows, which a method may alter, and terms beside it.

The pass is made once for all terms. Its gradients are pulled back once, and once more where something needs
dCE/d(embedding) or the losses of tokens beforehand and a term moves the hidden states.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from chinchilla_jax.config import Config, require
from chinchilla_jax.objectives.corruption import COPIES, in_place
from chinchilla_jax.objectives.delayed import delayed
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.methods import METHODS, RDROP, proximity
from chinchilla_jax.objectives.objective import WHOLE, Binding, Objective
from chinchilla_jax.objectives.passes import Pass, Term, when
from chinchilla_jax.types import Batch, Sums


def language(config: Config, binding: Binding) -> Objective:
    """Dense next-token prediction over what trains."""
    return binding.bind(dense(config.model, config.objective))


Make = Callable[[Config, Binding], Objective]


def build(config: Config, binding: Binding = WHOLE, make: Make = language) -> Objective:
    """What `make` gives, with the attacks and the corrupted tokens that `config` names; a `UserError` if it cannot be.

    `config` is one that `parallel.mesh.resolve` has settled. A radius of 0 is no attack, hence the plain objective.
    """
    cfg, noisy, kind, terms = config.adversarial.settled(), config.corruption, config.task.kind, []
    if cfg.method in METHODS and cfg.radius:
        terms.append(delayed(config) if cfg.delayed else METHODS[cfg.method])
    if cfg.rdrop:
        terms.append(RDROP)
    if cfg.proximity:
        terms.append(proximity(binding.axes))
    if noisy.share and noisy.copies:
        terms.append(COPIES)
    base = make(config, binding)
    require(
        base.loss is not None or not (terms or noisy.slopes),
        f"--adversarial.method, --adversarial.rdrop and --corruption.copies need a loss of tokens or labels, which "
        f"--task.kind {kind} has not; set them off",
    )
    compares = cfg.radius and (cfg.loss != "ce" or cfg.method == "softmax_margin")
    require(
        base.table is not None or not (compares or cfg.rdrop or cfg.proximity),
        f"--adversarial.method {cfg.method} compares predictions, which --task.kind {kind} has no measure for; take "
        "fgm, pgd, noise or freelb with --adversarial.loss ce",
    )
    objective = composed(base, config, terms) if terms else base
    return in_place(base, objective, config) if noisy.share and not noisy.copies else objective


def composed(base: Objective, config: Config, terms: list[Term]) -> Objective:
    """`base` with all terms."""
    learns, cfg = any(term.learns for term in terms), config.adversarial.settled()
    alter = next((term.alter for term in terms if term.alter), lambda now: now)
    beside = [term for term in terms if term.find and cfg.examples > term.takes]
    names = tuple(dict.fromkeys(term.shows for term in terms if term.shows))

    def gradients(params, batch: Batch, key, step, carry):
        now = Pass(base, config, cfg, params, batch, key, step, carry)
        main, n = alter(now), max(term.slopes(now) for term in terms)
        if n and main.delta_nLD is None:
            main = replace(main, delta_nLD=jnp.zeros((n, batch.tokens.shape[1], config.model.d_model)))
        (total, aux), pull = main.pull()
        one, none, early = jnp.ones_like(total), optax.tree.zeros_like(aux), bool(n or main.shows or not learns)
        grads, slope_nLD, losses_BL = pull((one, none)) if early else (optax.tree.zeros_like(params), None, None)
        now = replace(now, hidden_BLD=aux, delta_nLD=main.delta_nLD, slope_nLD=slope_nLD)
        asked, others = (grads, none)[: 1 + learns], Sums.zero(names).others
        for term in beside:

            def yes(term=term, asked=asked):
                more, shown = term.find(now)
                return jax.tree.map(jnp.add, asked, more[: 1 + learns]), shown

            asked, shown = when(term.due(now), yes, lambda asked=asked: (asked, Sums.zero()))
            others |= {term.shows: others[term.shows] + shown} if term.shows else {}
        if learns:
            of = jnp.zeros_like(total) if early else one
            more = when(not early or now.active, lambda: pull((of, asked[1]))[0], lambda: optax.tree.zeros_like(params))
            asked = (jax.tree.map(jnp.add, asked[0], more),)
        shown = main.shows(losses_BL, aux) if main.shows else Sums(total, jnp.sum(batch.weights))
        others |= {name: others[name] + value for name, value in shown.others.items()}
        carry = next((term.follow(now) for term in terms if term.follow), carry)
        return asked[0], replace(shown, others=others), carry

    keeps = next((term for term in terms if term.follow), base)
    return base._replace(gradients=gradients, others=names, init=keeps.init, carry_axes=keeps.carry_axes)
