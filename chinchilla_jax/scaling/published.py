"""Published laws of the loss by name, with where each comes from and what it must not be used for."""

from dataclasses import dataclass
from math import inf, log
from pathlib import Path

from chinchilla_jax.config import closest, require
from chinchilla_jax.scaling.law import Surface, positive
from chinchilla_jax.scaling.lawfile import EVERYWHERE, Form, LawFile, load, shipped


def _ranges(**known: tuple[float, float]) -> dict[str, tuple[float, float]]:
    return {name: known.get(name, EVERYWHERE) for name in ("N", "D", "C", "loss")}


# The 240 points read off Hoffmann et al.'s figure that Besiroglu et al. fit.
POINTS = _ranges(N=(5.73e7, 1.619e10), D=(8.18e8, 3.178e11), C=(1.39e18, 1.296e22), loss=(2.077, 3.406))


def _law(surface: Surface, source: str, dataset: str, warning: str = "", ranges: dict = POINTS, **rest: str) -> dict:
    """The fields of a law whose runs nobody has, hence without intervals; (0, inf) is a range that no source says."""
    form = "kaplan" if surface.e == -inf else "skaling" if surface.k != 1 else "chinchilla"
    theta = (surface.a, surface.b, surface.e, surface.alpha, surface.beta, log(surface.k))
    label = f"{source}. {warning}".strip()
    forms = (Form(form, theta),)
    rest = {"tokenizer": "SentencePiece, 32,000 pieces", **rest}
    return {"forms": forms, "ranges": ranges, "dataset": dataset, "label": label, **rest}


HOFFMANN = "Hoffmann et al. 2022, arXiv:2203.15556, approach 3"
STOPPED = "its optimiser stopped early: epoch-exact is the optimum of the same objective on the same points"
EPOCH = "Besiroglu et al. 2024, arXiv:2404.10102"
MASSIVE = "MassiveText"

PUBLISHED = {  # name -> fields of its `LawFile`
    "hoffmann-rounded": _law(
        Surface(log(406.4), log(410.7), log(1.69), 0.34, 0.28),
        f"{HOFFMANN}, as printed",
        MASSIVE,
        warning="rounding the exponents moves the optimum at 5.76e23 from 40.4 B to 32.2 B parameters; " + STOPPED,
    ),
    "hoffmann-tex": _law(
        Surface(6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083),
        f"{HOFFMANN}, digits of the TeX source",
        MASSIVE,
        warning=STOPPED,
    ),
    "epoch-published": _law(Surface(log(482.01), log(2085.43), log(1.8172), 0.3478, 0.3658), EPOCH, MASSIVE),
    "epoch-exact": _law(
        Surface(6.169246375, 7.670156734, 0.5973068148, 0.3473104989, 0.3671724327),
        f"the optimum of Hoffmann's objective on the 240 points of {EPOCH}",
        MASSIVE,
    ),
    "muennighoff-c4": _law(
        Surface(6.255414, 7.3049974, 0.6254804, 0.3526596, 0.3526596),
        "Muennighoff et al. 2023, arXiv:2305.16264; both exponents tied",
        "C4",
        tokenizer="GPT-2",
        ranges=_ranges(N=(7e6, 9e9), D=(0.0, 9e11)),
    ),
    "gadre-redpajama": _law(
        # Their E + a N^q + b 6^(q/2) (M N)^q with M = D / N, that is E + (a' M^h + b' M^-h) C^-h with h = -q / 2.
        Surface(5.113257968, 5.660067682, 0.6079423772, 0.2728507025, 0.2728507025),
        "Gadre et al. 2024, arXiv:2403.08540, least squares on their five default runs; both exponents tied",
        "RedPajama, C4 validation",
        tokenizer="GPT-NeoX",
        ranges=_ranges(N=(1.06e7, 4.12e8), D=(2.1e8, 8.3e9), C=(1.3e16, 2.1e19), loss=(3.14, 5.4)),
    ),
    "sardana": _law(
        Surface(log(406.4), log(410.7), log(1.69), 0.336, 0.283),
        "Sardana et al. 2024, arXiv:2401.00448, Hoffmann's digits",
        MASSIVE,
        warning=STOPPED,
    ),
    "kaplan": _law(
        Surface(0.076 / 0.103 * log(6.4e13), log(1.8e13), -inf, 0.076 / 0.103, 1.0, 0.103),
        "Kaplan et al. 2020, arXiv:2001.08361, eq. 1.5",
        "WebText2",
        count="n_nonembed",
        accounting="6ND_nonembed",
        tokenizer="GPT-2",
        warning="fitted at one length of schedule and without embeddings; its optimum is not their N ~ C^0.73",
        ranges=_ranges(),
    ),
}


@dataclass(frozen=True)
class Allocation:
    """N = n C^a and D = d C^b at the optimum of C FLOPs, where a source has no law of the loss."""

    n: float
    a: float
    d: float
    b: float
    source: str

    def optimum(self, C: float) -> tuple[float, float]:
        """(N, D) of the best run of C FLOPs."""
        positive(C=C)
        return self.n * C**self.a, self.d * C**self.b


# Lines through the columns of Hoffmann et al.'s tables 3 and A3 (a typo in A3 left out); DeepSeek's size is M, FLOPs
# a token without the tables (`counts.ACCOUNTINGS["deepseek"]`), in place of N.
ALLOCATIONS = {
    "hoffmann-1": Allocation(
        0.0992, 0.4981, 1.696, 0.5019, "Hoffmann et al. 2022, approach 1 (least loss at a budget)"
    ),
    "hoffmann-2": Allocation(0.1449, 0.4899, 1.153, 0.5100, "Hoffmann et al. 2022, approach 2 (parabolas)"),
    "hoffmann-3": Allocation(0.535, 0.4586, 1 / (6 * 0.535), 0.5414, "Hoffmann et al. 2022, approach 3, table A3"),
    "deepseek-m": Allocation(0.1715, 0.5243, 5.8316, 0.4757, "DeepSeek-AI 2024, arXiv:2401.02954; M in place of N"),
}


def published(name: str) -> LawFile:
    """The law of that name; `UserError` with a hint for one that is not known."""
    require(name in PUBLISHED, f"no law {name!r}{closest(name, PUBLISHED)}; known are {', '.join(PUBLISHED)}")
    return LawFile(name, **PUBLISHED[name])


def law_of(name: str) -> LawFile:
    """A law by name, ours before the published ones, or the law file at a path; `UserError` for none of them."""
    if Path(name).suffix == ".json":
        return load(Path(name))
    known = list(dict.fromkeys([*shipped(), *PUBLISHED]))
    require(name in known, f"no law {name!r}{closest(name, known)}; known are {', '.join(known)}, or a law.json of fit")
    return shipped()[name] if name in shipped() else published(name)


def mixture(experts: float) -> Surface:
    """The dense-like law of a mixture of `experts` experts: Ludziejewski et al. 2025, arXiv:2502.05172.

    L = a Ê^delta N_act^(alpha + gamma ln Ê) + b Ê^omega D^(beta + zeta ln Ê) + c, with Ê between the saturating ends
    1 / Ê = 1 / (E - 1 + (1/E_s - 1/E_m)^-1) + 1/E_m; N counts active parameters.
    """
    require(1 <= experts < inf, f"{experts:g} experts: give at least 1")
    start, most = 2.0732, 290.4521
    x = log(1 / (1 / (experts - 1 + 1 / (1 / start - 1 / most)) + 1 / most))
    a, b = log(35.91) - 0.2285 * x, log(35.98) + 0.5529 * x
    return Surface(a, b, log(1.3637), 0.1889 - 0.0098 * x, 0.1775 + 0.0259 * x)
