"""Terms beside the clean pass that are no perturbation of embeddings: a trust region, R-Drop, corrupted copies."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.objectives import corruption, losses
from chinchilla_jax.objectives.attack import Attack
from chinchilla_jax.objectives.compose import Pass, Term
from chinchilla_jax.objectives.rows import Rows, sums
from chinchilla_jax.types import Sums


def proximity(attack: Attack, params, batch, key, step, carry, made: Pass):
    """w symKL(now, before): `before` is what a running average of the parameters predicts (Jiang et al. 2020)."""

    def hidden(hidden_BLD, table_VD, _):
        return 0.0, (hidden_BLD, table_VD)

    before = attack.base.loss(carry["before"], batch, key, None, hidden, priced=False)[1]

    def apart(params, now_BLD):
        of, arrays = partial(losses.divergence, "sym_kl"), (batch.targets, batch.weights * attack.cfg.proximity)
        table_VD = attack.base.table(params)
        return losses.tiled(of, (now_BLD,), table_VD, (before,), arrays, attack.tile_tokens)[0]

    return jax.grad(apart, (0, 1))(params, made.hidden_BLD), Sums.zero()


def average(attack: Attack) -> Callable:
    """The running average of the parameters, moved once a microbatch so that a step moves it as it should."""
    momentum = attack.cfg.momentum ** (1 / attack.config.train.microbatches)

    def follow(params, carry, batch, made):
        moved = jax.tree.map(lambda old, new: momentum * old + (1 - momentum) * new, carry["before"], params)
        return {"before": moved}

    return follow


def rdrop(attack: Attack, params, batch, key, step, carry, made: Pass):
    """A second pass with other dropout masks; with the clean one R-Drop's (CE + CE') / 2 + w/2 symKL."""

    def apart(params, clean_BLD):
        table_VD, of = attack.base.table(params), partial(losses.rdrop, attack.cfg.rdrop)

        def head(other_BLD, _, batch):
            arrays = batch.targets, batch.weights
            return losses.tiled(of, (other_BLD, clean_BLD), table_VD, (), arrays, attack.tile_tokens)

        return attack.base.loss(params, batch, jax.random.fold_in(key, 3), None, head, priced=False)[0]

    return jax.grad(apart, (0, 1))(params, made.hidden_BLD), Sums.zero()


def copies(attack: Attack, params, batch, key, step, carry, made: Pass):
    """Corrupted copies of some rows, with their labels."""
    cfg = attack.config.corruption
    part, slope_nLD = Rows(attack.config, cfg.copies).take((batch, made.slope_nLD))
    score = corruption.scored(attack.base.embedding(params), slope_nLD) if cfg.slopes else None
    replaced = corruption.replaced(attack.config, part, key, step, score)
    zeros_nLD = jnp.zeros((*part.tokens.shape, attack.config.model.d_model))
    grads, _, losses_nL, _ = attack.everything(params, replaced, key, zeros_nLD, part.weights * cfg.weight)
    return (grads, None), sums(losses_nL, part.weights)


def named(attack: Attack) -> list[Term]:
    """Those that a config names."""
    cfg, noisy, found = attack.cfg, attack.config.corruption, []
    if cfg.rdrop:
        found.append(Term(partial(rdrop, attack), attack.active, learns=True))
    if cfg.proximity:
        keeps = {
            "init": lambda params: {"before": jax.tree.map(jnp.copy, params)},
            "carry_axes": {"before": attack.axes},
        }
        how = {"learns": True, "follow": average(attack), "keeps": keeps}
        found.append(Term(partial(proximity, attack), attack.active, **how))
    if noisy.share and noisy.copies:
        slopes = {"slopes": Rows(attack.config, noisy.copies).count} if noisy.slopes else {}
        found.append(Term(partial(copies, attack), shows="loss_corrupted", **slopes))
    return found
