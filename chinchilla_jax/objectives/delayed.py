"""Delayed rows: an attack that costs nothing, since it uses the direction that an ordinary backward pass has given.

Of a microbatch of B rows, rows n to 2n are kept together with dCE/d(embedding), which the backward pass forms anyway.
In the next microbatch (of this step or the next one) they take the place of its rows 0 to n, which are dropped and
never trained on, and are perturbed by size * steepest(that gradient): one pass, one step of staleness, none in the
weights between two microbatches. With sums over the B - n fresh rows and the n delayed ones, and W the weight of the
fresh ones, the loss is (CE(fresh) + w A(delayed + d)) / W. A is CE, or with `loss` kl or sym_kl the divergence from the
prediction that the same rows, clean, have had the step before: their hidden states are kept as well, and meet the
table of today. That costs 4/3 of the head's products on n rows, in every step: to pay it only in steps that attack
would put collectives into a branch of a conditional, which XLA's CPU backend orders differently on different devices.

The carry is the rows, their direction (a unit vector in the compute type, brought back to its length in float32), their
hidden states where a divergence wants them, and whether there are any yet. It is kept up from the first step, so that
the first attack finds its rows.
"""

from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.config import require
from chinchilla_jax.objectives import losses
from chinchilla_jax.objectives.attack import Attack
from chinchilla_jax.objectives.compose import Main, Pass, Term
from chinchilla_jax.objectives.rows import sums
from chinchilla_jax.types import Batch, Sums


def delayed(attack: Attack):
    """What `composed` takes: how the pass over all rows is altered, and the term that keeps rows."""
    train, model = attack.config.train, attack.config.model
    rows = train.batch_size // train.microbatches
    n, L = attack.rows.count(rows), train.seq_len
    diverges, of = attack.cfg.loss != "ce", partial(losses.divergence, attack.cfg.loss)
    require(
        2 * n <= rows,
        f"--adversarial.delayed takes {n} rows out of a microbatch of {rows} and as many to keep; lower "
        "--adversarial.fraction or --train.microbatches, or raise --train.batch-size",
    )

    def init(params):
        whole, real = jnp.zeros((n, L), jnp.int32), jnp.zeros((n, L), jnp.float32)
        kept = Batch(whole, whole, real, whole, whole)
        direction_nLD = jnp.zeros((n, L, model.d_model), model.dtype)
        clean_nLD = jnp.zeros((n, L, model.d_model), model.dtype) if diverges else ()
        return {"batch": kept, "direction": direction_nLD, "clean": clean_nLD, "valid": jnp.zeros((), bool)}

    def alter(params, batch, key, step, carry) -> Main:
        active, kept = carry["valid"] & attack.active(step), carry["batch"]
        old = attack.hit(batch) * active  # (B, 1)
        mixed = jax.tree.map(lambda x, y: jnp.where(old > 0, jnp.pad(x, [(0, rows - n), (0, 0)]), y), kept, batch)

        def head(hidden_BLD, table_VD, part):
            """Cross-entropy, in which delayed rows have no weight, and their divergence from what they were."""
            loss, _ = attack.base.head(hidden_BLD, table_VD, part)
            weights_BL = mixed.weights * old * attack.cfg.weight
            y_nLD, x_nLD, *rest = attack.rows.take((hidden_BLD, carry["clean"], part.targets, weights_BL))
            fixed = ((x_nLD, jax.lax.stop_gradient(table_VD)),)
            return loss + losses.tiled(of, (y_nLD,), table_VD, fixed, rest, attack.tile_tokens)[0], hidden_BLD

        def shows(losses_BL, _):
            fresh, other = sums(losses_BL, mixed.weights * (1 - old)), sums(losses_BL, mixed.weights * old)
            return Sums(fresh.loss, fresh.weight, {"loss_attacked": other})

        delta_nLD = attack.size(params, kept) * attack.along(carry["direction"], kept) * active
        read = attack.weighted(mixed, active, 0.0 if diverges else attack.cfg.weight)
        next_nLD = jnp.zeros_like(delta_nLD)  # of the rows whose direction is kept
        return Main(read, jnp.concatenate([delta_nLD, next_nLD]), head if diverges else None, shows)

    def keep(params, carry, batch, made: Pass):
        kept, clean_nLD = jax.tree.map(lambda x: x[n : 2 * n], (batch, made.hidden_BLD if diverges else ()))
        direction_nLD = attack.along(made.slope_nLD[n:], kept).astype(model.dtype)
        return {"batch": kept, "direction": direction_nLD, "clean": clean_nLD, "valid": jnp.ones((), bool)}

    split = "batch" if n % attack.rows.shards == 0 else None
    whole = split, None, None
    axes = {"batch": Batch(*[(split, None)] * 5), "direction": whole, "clean": whole if diverges else (), "valid": ()}
    keeps = {"init": init, "carry_axes": axes}
    return alter, Term(None, slopes=lambda _: 2 * n, shows="loss_attacked", follow=keep, keeps=keeps)
