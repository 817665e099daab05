"""Rules that carry a tuned rate, batch, decay and beta2 from one run to another: factors without constants."""

from collections.abc import Callable
from typing import NamedTuple

from chinchilla_jax.config import closest, require
from chinchilla_jax.scaling.hparams import Scale


class Tuned(NamedTuple):
    """What was tuned at one scale: peak rate, batch tokens, weight decay and beta2."""

    rate: float
    batch: float
    decay: float = 0.1
    beta2: float = 0.95


class Transfer(NamedTuple):
    """A rule that knows factors and no constants: what more tokens do to the batch, and then to the rest.

    `larger`, `longer` and `more` are the new N, D and batch over the old; beta2 becomes beta2^`halving`.
    """

    more: Callable[[float], float]
    rate: Callable[[float, float, float], float]
    decay: Callable[[float, float], float] = lambda longer, more: 1.0
    halving: Callable[[float], float] = lambda more: 1.0
    source: str = ""


TRANSFERS = {
    "bjorck": Transfer(
        more=lambda longer: 1.0,
        rate=lambda larger, longer, more: larger**-0.23 * longer**-0.32,
        source="Bjorck et al. 2024, arXiv:2409.19913; at a fixed batch, hence the other sign of D than Step Law's",
    ),
    "power-lines": Transfer(
        more=lambda longer: longer**0.383,
        rate=lambda larger, longer, more: 1.0,
        decay=lambda longer, more: more / longer,
        source="Bergsma et al. 2025, arXiv:2505.13738; under muP, B / (rate decay D) kept, at equal tokens a parameter",
    ),
    "nanochat": Transfer(
        more=lambda longer: longer**0.383,
        rate=lambda larger, longer, more: more**0.5,
        decay=lambda longer, more: more**0.5 / longer,
        source="nanochat (2026)",
    ),
    "delphi": Transfer(
        more=lambda longer: 1.0,
        rate=lambda larger, longer, more: more**0.5 * longer**-0.3,
        halving=lambda more: more,
        source="Delphi (Marin, 2026): held from 3e20 to 1e23 FLOPs; the batch is one's own choice",
    ),
}


def transfer(name: str, was: Tuned, old: Scale, new: Scale, batch: float | None = None) -> Tuned:
    """What was tuned at `old`, carried to `new` by a rule of `TRANSFERS`; `batch` overrules the rule's own."""
    require(name in TRANSFERS, f"no transfer {name!r}{closest(name, TRANSFERS)}; known are {', '.join(TRANSFERS)}")
    rule, larger, longer = TRANSFERS[name], new.n_nonembed / old.n_nonembed, new.tokens / old.tokens
    more = rule.more(longer) if batch is None else batch / was.batch
    require(name != "bjorck" or more == 1, "bjorck holds the batch fixed; leave it, or name another transfer")
    return Tuned(
        was.rate * rule.rate(larger, longer, more),
        was.batch * more,
        was.decay * rule.decay(longer, more),
        was.beta2 ** rule.halving(more),
    )
