"""Delayed rows: an attack that costs nothing, since it uses the direction that an ordinary backward pass has given.

Of a microbatch of B rows, rows n to 2n are kept together with dCE/d(embedding), which the backward pass forms anyway.
In the next microbatch (of this step or the next one) they take the place of its rows 0 to n, which are dropped and
never trained on, and are perturbed by size * steepest(that gradient): one pass, one step of staleness, none in the
weights between two microbatches. With sums over the B - n fresh rows and the n delayed ones, and W the weight of the
fresh ones, the loss is (CE(fresh) + w A(delayed + d)) / W. A is CE, or with `loss` kl or sym_kl the divergence from the
prediction that the same rows, clean, had the step before: their hidden states are kept as well, and meet the table of
today. That costs 4/3 of the head's products on n rows, in every step: in a conditional, XLA's CPU backend would order
the collectives differently on different devices. The carry (rows, unit direction in the compute type, hidden states,
whether there are any yet) is kept up from the first step, so that the first attack finds its rows.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.config import Config, require, whole_rows
from chinchilla_jax.objectives import losses
from chinchilla_jax.objectives.passes import Pass, Term
from chinchilla_jax.parallel.sharding import first_rows
from chinchilla_jax.types import Batch, Sums


def delayed(config: Config) -> Term:
    """The term that keeps rows, and the pass that takes them."""
    train, model, cfg = config.train, config.model, config.adversarial.settled()
    rows = train.batch_size // train.microbatches
    n, diverges, of = whole_rows(cfg.fraction, rows), cfg.loss != "ce", partial(losses.divergence, cfg.loss)
    require(
        2 * n <= rows,
        f"--adversarial.delayed takes {n} rows out of a microbatch of {rows} and as many to keep; lower "
        "--adversarial.fraction or --train.microbatches, or raise --train.batch-size",
    )

    def init(params):
        real_nL, of_nLD = jnp.zeros((n, train.seq_len)), jnp.zeros((n, train.seq_len, model.d_model), model.dtype)
        whole_nL = real_nL.astype(jnp.int32)
        kept = Batch(whole_nL, whole_nL, real_nL, whole_nL, whole_nL)
        return carried(kept, of_nLD, of_nLD, jnp.zeros((), bool))

    def carried(batch, direction, clean, valid):
        return {"batch": batch, "direction": direction, "clean": clean if diverges else (), "valid": valid}

    def alter(now: Pass) -> Pass:
        carry, batch = now.carry, now.batch
        kept, active = replace(now, batch=carry["batch"]), carry["valid"] & now.active
        old = now.hit(active)  # (B, 1)
        mixed = jax.tree.map(lambda x, y: jnp.where(old > 0, jnp.pad(x, [(0, rows - n), (0, 0)]), y), kept.batch, batch)

        def head(hidden_BLD, table_VD, part):
            """Cross-entropy, in which delayed rows have no weight, and their divergence from what they were."""
            loss, _ = now.base.head(hidden_BLD, table_VD, part)
            weights_BL = mixed.weights * old * cfg.weight
            y_nLD, x_nLD, *rest = first_rows((hidden_BLD, carry["clean"], part.targets, weights_BL), n)
            fixed = ((x_nLD, jax.lax.stop_gradient(table_VD)),)
            return loss + now.tiled(of, (y_nLD,), table_VD, fixed, *rest)[0], hidden_BLD

        def shows(losses_BL, _):
            attacked = {"loss_attacked": Sums.of(losses_BL, mixed.weights * old)}
            return replace(Sums.of(losses_BL, mixed.weights * (1 - old)), others=attacked)

        delta_nLD = kept.size() * kept.along(carry["direction"]) * active
        both_nLD = jnp.concatenate([delta_nLD, jnp.zeros_like(delta_nLD)])  # with rows whose direction is kept
        read = replace(now, batch=mixed).weighted(active, 0.0 if diverges else cfg.weight)
        return replace(read, delta_nLD=both_nLD, head=head if diverges else None, shows=shows)

    def keep(now: Pass):
        batch, clean_nLD = jax.tree.map(lambda x: x[n : 2 * n], (now.batch, now.hidden_BLD if diverges else ()))
        direction_nLD = replace(now, batch=batch).along(now.slope_nLD[n:]).astype(model.dtype)
        return carried(batch, direction_nLD, clean_nLD, jnp.ones((), bool))

    split = "batch" if n % abs(config.mesh.data * config.mesh.fsdp) == 0 else None
    axes = carried(Batch(*[(split, None)] * 5), (split, None, None), (split, None, None), ())
    return Term(alter=alter, slopes=lambda _: 2 * n, follow=keep, init=init, carry_axes=axes)
