"""Published laws of the loss by name, with where each comes from and what it must not be used for."""

from dataclasses import dataclass
from math import inf, log

from chinchilla_jax.config import closest, require
from chinchilla_jax.scaling.surface import Surface


@dataclass(frozen=True)
class Published:
    """A law with its source; N as `count` has it, loss in nats a token of `tokenizer`, fitted inside `ranges`."""

    surface: Surface
    source: str
    dataset: str
    count: str = "n_total"
    tokenizer: str = "SentencePiece, 32,000 pieces"
    warning: str = ""
    ranges: tuple[tuple[str, tuple[float, float]], ...] = (
        ("N", (4.4e7, 1.62e10)),
        ("D", (1e8, 5e11)),
        ("C", (6e18, 3e21)),
        ("loss", (1.8, 3.8)),
    )


HOFFMANN = "Hoffmann et al. 2022, arXiv:2203.15556, approach 3"
STOPPED = "its optimiser stopped early: epoch-exact is the optimum of the same objective on the same points"
EPOCH = "Besiroglu et al. 2024, arXiv:2404.10102"
MASSIVE = "MassiveText"
ANYWHERE = (("N", (0.0, inf)), ("D", (0.0, inf)), ("C", (0.0, inf)), ("loss", (0.0, inf)))

DEFAULT = "epoch-exact"

PUBLISHED = {
    "hoffmann-rounded": Published(
        Surface(log(406.4), log(410.7), log(1.69), 0.34, 0.28),
        f"{HOFFMANN}, as printed",
        MASSIVE,
        warning="rounding the exponents moves the optimum at 5.76e23 from 40.4 B to 32.2 B parameters; " + STOPPED,
    ),
    "hoffmann-tex": Published(
        Surface(6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083),
        f"{HOFFMANN}, digits of the TeX source",
        MASSIVE,
        warning=STOPPED,
    ),
    "epoch-published": Published(Surface(log(482.01), log(2085.43), log(1.8172), 0.3478, 0.3658), EPOCH, MASSIVE),
    "epoch-exact": Published(
        Surface(6.16924638, 7.67015673, 0.59730681, 0.347310, 0.367172),
        f"the optimum of Hoffmann's objective on the 240 points of {EPOCH}",
        MASSIVE,
    ),
    "muennighoff-c4": Published(
        Surface(6.255414, 7.3049974, 0.6254804, 0.3526596, 0.3526596),
        "Muennighoff et al. 2023, arXiv:2305.16264; both exponents tied",
        "C4",
        tokenizer="GPT-2",
        ranges=ANYWHERE,
    ),
    "gadre-redpajama": Published(
        Surface(log(166.2), log(366.7) - 0.2729 / 2 * log(6), log(1.8366), 0.2729, 0.2729),
        "Gadre et al. 2024, arXiv:2403.08540, from their five default runs",
        "RedPajama, C4 validation",
        tokenizer="GPT-NeoX",
        ranges=ANYWHERE,
    ),
    "sardana": Published(
        Surface(log(406.4), log(410.7), log(1.69), 0.336, 0.283),
        "Sardana et al. 2024, arXiv:2401.00448, Hoffmann's digits",
        MASSIVE,
        warning=STOPPED,
    ),
    "kaplan": Published(
        Surface(0.076 / 0.103 * log(6.4e13), log(1.8e13), -inf, 0.076 / 0.103, 1.0, 0.103),
        "Kaplan et al. 2020, arXiv:2001.08361, eq. 1.5",
        "WebText2",
        count="n_nonembed",
        tokenizer="GPT-2",
        warning="fitted at one length of schedule and without embeddings; its optimum has too many parameters",
        ranges=ANYWHERE,
    ),
}


def published(name: str) -> Published:
    """The law of that name; `UserError` with a hint otherwise."""
    require(name in PUBLISHED, f"no law {name!r}{closest(name, PUBLISHED)}; known are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def mixture(experts: float) -> Surface:
    """The dense-like law of a mixture of `experts` experts: Ludziejewski et al. 2025, arXiv:2502.05172.

    L = a Ê^delta N_act^(alpha + gamma ln Ê) + b Ê^omega D^(beta + zeta ln Ê) + c, with Ê between the saturating ends
    1 / Ê = 1 / (E - 1 + (1/E_s - 1/E_m)^-1) + 1/E_m; N counts active parameters.
    """
    require(experts >= 1, f"{experts:g} experts: give at least 1")
    start, most = 2.0732, 290.4521
    x = log(1 / (1 / (experts - 1 + 1 / (1 / start - 1 / most)) + 1 / most))
    a, b = log(35.91) - 0.2285 * x, log(35.98) + 0.5529 * x
    return Surface(a, b, log(1.3637), 0.1889 - 0.0098 * x, 0.1775 + 0.0259 * x)
