"""The whole protocol of robustness on a fixed part of a validation set: one table, one picture, one JSON object.

The part is spread evenly over the set and depends on `tokens` alone, so that two checkpoints are attacked on the same
windows. Never choose a radius or a recipe by these figures and report them too: hold another part back for that.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.data.batches import gather
from chinchilla_jax.data.split import Split
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.evaluation import judged, noise, robustness
from chinchilla_jax.evaluation.likelihood import Likelihood
from chinchilla_jax.model.adapted import prefix
from chinchilla_jax.parallel import devices
from chinchilla_jax.scaling import counts
from chinchilla_jax.training.load import Loaded
from chinchilla_jax.training.metrics import duration
from chinchilla_jax.types import Batch


@dataclass(frozen=True)
class Attack:
    """How much is attacked, and how hard."""

    tokens: int = 8192
    radii: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2)
    typos: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1)
    restarts: int = 2
    seed: int = 0

    def __post_init__(self):
        require(self.tokens > 0, f"--attack-tokens {self.tokens} must be at least 1")
        require(all(0 < rho < math.inf for rho in self.radii), f"--radii {_words(self.radii)} must be positive")
        require(all(0 <= q < 1 for q in self.typos), f"--typo-rates {_words(self.typos)} must lie in [0, 1)")
        require(self.restarts > 0, f"--restarts {self.restarts} must be at least 1")
        require(0 <= self.seed < 2**32, f"--attack-seed {self.seed} must lie in [0, 2**32)")


def _words(values) -> str:
    return " ".join(map(str, values))


def measure(
    loaded: Loaded, store: TokenStore, attack: Attack, say: Callable[[str], None], show: Callable[[str], None]
) -> dict[str, Any]:
    """Every figure of the protocol; `say` gets lines that stay, `show` the progress.

    `attack_report`'s, and in bits per byte typo, word (each by share) and segmentation, with `notes` to be read.
    """
    split, likelihood = store.valid, Likelihood(loaded.program, store.valid)
    config = loaded.program.config
    length, rows = config.train.seq_len, likelihood.rows
    total = -(-windows(split, length, attack.tokens) // rows)
    say(price(loaded, total * rows * length, attack))
    begun, done = time.monotonic(), 0

    def poll():
        nonlocal done
        done += 1
        left = (time.monotonic() - begun) / done * (total * len(attack.radii) - done)
        show(f"attacked {done} of {total * len(attack.radii)} batches and radii | eta {duration(left)}")

    batches, others = (map(likelihood.placed, spread(split, length, rows, attack.tokens, odd)) for odd in (0, 1))
    given = loaded.params, config.model, batches, attack.radii, jax.random.key(attack.seed)
    special = *loaded.tokenizer.special, *prefix(loaded.params["embed"]["table"])
    how = {"restarts": attack.restarts, "special": special, "poll": poll}
    with jax.set_mesh(loaded.program.mesh):
        fitted = judged.temperature(loaded.params, others, robustness.exact(config.model))
        log_unigram = judged.unigram(store.train, config.model.vocab_size)
        found = robustness.attack_report(*given, log_unigram=log_unigram, temperature=fitted, **how)
    found |= {"temperature": fitted, "mixture": judged.MIXTURE, **faulty(loaded, likelihood, attack)}
    return found | {"restarts": attack.restarts, "seed": attack.seed, "notes": notes(found)}


def faulty(loaded: Loaded, likelihood: Likelihood, attack: Attack) -> dict[str, Any]:
    """The figures on mistyped, wrong and differently cut text; empty where the tokenizer changes a text itself, or the
    tokens make no character.
    """
    texts = noise.excerpts(likelihood.split, loaded.tokenizer, attack.tokens, loaded.program.config.train.seq_len)
    if not texts or not loaded.tokenizer.keeps(texts):
        return {}
    given = loaded.params, likelihood, texts, loaded.tokenizer
    typed, wrong = noise.typo_report(*given, attack.typos, attack.seed), [share for share in attack.typos if share]
    return {
        **typed,
        "word": {0.0: typed["typo"][0.0], **noise.word_report(*given, wrong, attack.seed)},
        "segmentation": noise.segmentation_report(*given, attack.seed),
    }


def notes(found: dict[str, Any]) -> list[str]:
    """What a reader of the figures must know."""
    masked = [rho for rho, fine in found["ordered"].items() if not fine]
    lines = []
    if masked:
        lines.append(
            f"at radius {_words(masked)} a stronger attack did less than a weaker one: the gradient is masked, and "
            "these losses say nothing of robustness"
        )
    if "typo" not in found:
        lines.append("typos are left out: the tokenizer changes texts, so that they have no place, or there is no text")
    return lines


def windows(split: Split, length: int, tokens: int) -> int:
    """Windows of a part of about `tokens` tokens: half of all at most, the others being for the temperature."""
    return min(-(-tokens // length), max(1, -(-(len(split.tokens) - 1) // length) // 2))


def spread(split: Split, length: int, rows: int, tokens: int, odd: int = 0) -> Iterator[Batch]:
    """Batches of windows that lie evenly over the split, all of even number or all `odd`; the last is filled up with
    empty rows."""
    there, count = -(-(len(split.tokens) - 1) // length), windows(split, length, tokens)
    for first in range(0, count, rows):
        number_B = first + np.arange(rows, dtype=np.int64)
        window_B = np.minimum(2 * (number_B * max(1, there // 2) // count) + odd, there - 1)
        yield gather(split, np.where(number_B < count, window_B, there) * length, length)


def price(loaded: Loaded, tokens: int, attack: Attack) -> str:
    """What it will cost, in words, before anything is spent. A pass for a gradient in delta is two forward passes."""
    config, steps = loaded.program.config, sum(robustness.STEPS)
    judging = 1 + len(attack.radii) * (2 + len(robustness.STEPS))
    forward = judging + len(attack.radii) * (2 + 2 + attack.restarts * (2 * steps + len(robustness.STEPS)))
    flops = tokens * forward * counts.flops_per_token(config.model, config.train.seq_len) / 3
    flops_per_s = devices.expected_flops_per_s(list(loaded.program.mesh.devices.flat))
    time = f", about {duration(flops / flops_per_s)}" if flops_per_s else ""
    return f"attacking {tokens:,} tokens at {len(attack.radii)} radii: {flops:.2g} FLOPs{time}"


def table(found: dict[str, Any]) -> str:
    """The figures as text, each with its standard error."""
    names, strong = ["rand", "fgm", *(f"pgd{count}" for count in robustness.STEPS)], f"pgd{max(robustness.STEPS)}"
    plain, over = found["rows"]["plain"], f"over {found['tokens']:,} tokens"
    lines = [
        f"clean {shown(plain['clean']['loss'])} nats per token {over}; area {found['area']:.4f}",
        f"{'radius':>8} {'absolute':>10} " + " ".join(f"{name:>17}" for name in names) + "   (nats ± standard error)",
    ]
    for rho, absolute in found["absolute"].items():
        losses = " ".join(f"{shown(plain[name][rho]['loss']):>17}" for name in names)
        lines.append(f"{rho:>8g} {absolute:>10.4g} {losses}")
    lines.append(f"{'radius':>8} {'under ' + strong:<24} " + " ".join(f"{name:>17}" for name in judged.FIGURES))
    for rho in (None, *found["absolute"]):
        for row, of in found["rows"].items():
            at = of["clean"] if rho is None else of[strong][rho]
            values = " ".join(f"{shown(at[figure]):>17}" for figure in judged.FIGURES)
            lines.append(f"{'clean' if rho is None else f'{rho:g}':>8} {LABELS[row]:<24} {values}")
    if "typo" in found:
        lines.append(f"{'share':>8} {'typo':>10} {'scored':>9} {'word':>9}   (bits per clean byte)")
    for share, bits in found.get("typo", {}).items():
        lines.append(f"{share:>8g} {bits:>10.4f} {found['typo_scored'][share]:>9.1%} {found['word'][share]:>9.4f}")
    if "segmentation" in found:
        lines.append(f"sampled segmentation: {found['segmentation']:.4f} bits per byte")
    return "\n".join(lines)


LABELS = {"plain": "model", "mixture": "model + unigram mixture", "temperature": "model + temperature"}


def shown(figure: tuple[float, float]) -> str:
    """A mean and its standard error."""
    return f"{figure[0]:.4f} ± {figure[1]:.4f}"


def draw(found: dict[str, Any], path: Path) -> None:
    """Loss over the radius for each attack, and bits per byte over the share of mistakes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("rand", "fgm", *(f"pgd{count}" for count in robustness.STEPS)):
        left.plot([0, *found[name]], [found["clean"], *found[name].values()], marker="o", label=name)
    left.set(
        xlabel="radius, in norms of the token's own embedding", ylabel="nats per token", title="perturbed embeddings"
    )
    for name in ("typo", "word"):
        if name in found:
            right.plot(*zip(*found[name].items()), marker="o", label=name)
    right.set(xlabel="share of characters or tokens", ylabel="bits per clean byte", title="faulty text")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(path, dpi=120)
