"""What is minimised: the dense loss, and attacks on the embeddings."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from chinchilla_jax.config.settings import flag, require, setting


@dataclass(frozen=True)
class ObjectiveConfig:
    """Dense next-token cross-entropy."""

    z_loss: float = setting(0.0, "weight of the squared log-normaliser (PaLM uses 1e-4)")
    tile_tokens: int = setting(0, "tokens whose logits exist at one time on a device; 0 chooses by platform")
    logits: Literal["auto", "float32", "compute"] = setting(
        "auto", "type of the training loss's logits before float32 sums; auto: --model.dtype on NVIDIA cards"
    )
    positions: Literal["auto", "all", "trained"] = setting(
        "auto",
        "whose logits are computed: all, or those with a loss; auto: the latter for tasks whose prompts have none",
    )
    activation_l1: float = setting(0.0, "weight of the mean L1 norm of the hidden activations (mlp reglu or relu2)")

    def __post_init__(self):
        require(self.z_loss >= 0, f"--objective.z-loss {self.z_loss} must not be negative")
        require(self.activation_l1 >= 0, f"--objective.activation-l1 {self.activation_l1} must not be negative")
        require(self.tile_tokens >= 0, "--objective.tile-tokens must not be negative")


@dataclass(frozen=True)
class Method:
    """What a method can do, and what it does unless told: losses of attacked rows, starts, steps, strength and rows.

    The first loss and start are its own. `follows`: which of the settings FEW it looks at, which not all methods do.
    `alone`: it alters the main pass, so that nothing can be summed with it.
    """

    losses: tuple[str, ...] = ("ce",)
    inits: tuple[str, ...] = ("zeros", "uniform", "gaussian")
    steps: int = 0  # 0 for a method without an ascent of its own
    fraction: float = 1.0
    examples: bool = True
    follows: tuple[str, ...] = ("norm", "unit")
    radius: float = 0.2
    start: float = 0.0
    alone: bool = False


FEW = ("norm", "unit", "step_size", "probe")
BALL, LATE = ("norm", "unit", "step_size"), 0.67
# docs/ablation compares, with radii in norms of the table, fgm as it is here, pgd on all rows, vat with probe 0.1, and
# noise that is uniform. freelb, r3f and smart have what docs/ablation/tasks compares in fine-tuning.
ATTACKS = {
    "off": Method(),
    "noise": Method(inits=("gaussian", "uniform"), start=LATE, alone=True),
    "fgm": Method(losses=("kl", "ce", "sym_kl"), follows=BALL, fraction=0.125, start=LATE),
    "pgd": Method(
        inits=("uniform", "zeros", "gaussian"), steps=3, follows=BALL, fraction=0.125, start=LATE, alone=True
    ),
    "freelb": Method(steps=2, examples=False, follows=BALL, radius=0.1, alone=True),
    "vat": Method(
        losses=("kl", "sym_kl"), inits=("gaussian", "uniform"), steps=1, follows=("norm", "unit", "probe"), start=LATE
    ),
    "r3f": Method(losses=("sym_kl", "kl"), inits=("uniform", "gaussian"), radius=0.1),
    "smart": Method(losses=("sym_kl", "kl"), inits=("gaussian", "uniform"), steps=1, follows=BALL, radius=0.1),
    "softmax_margin": Method(inits=("zeros",), examples=False, follows=(), radius=0.03, start=LATE, alone=True),
}


def whole_rows(fraction: float, rows: int) -> int:
    """The rows that a share of a microbatch's `rows` is: rounded down, 1 at least."""
    return max(1, int(fraction * rows + 1e-6))


@dataclass(frozen=True)
class AdversarialConfig:
    """Perturbations of embeddings, dropout and parameters that the loss is also to be small under."""

    method: Literal["off", "noise", "fgm", "pgd", "freelb", "vat", "r3f", "smart", "softmax_margin"] = setting(
        "off", "how the perturbation is found; the settings below that are auto take what suits the method"
    )
    radius: float | None = setting(None, "strength: size of the ball in --adversarial.unit")
    unit: Literal["token", "table", "absolute"] = setting(
        "token", "of the radius: the norm of the token's own row, the mean norm of the table's rows, or 1"
    )
    norm: Literal["l2_token", "l2_sequence", "linf"] = setting(
        "l2_token", "what the radius bounds: a token's L2 norm, a document's, or every coordinate"
    )
    examples: int = setting(1, "perturbed copies of an attacked row, which share its weight")
    steps: int = setting(0, "ascent steps of pgd, freelb, vat and smart; 0 is 3, 2, 1 and 1")
    step_size: float = setting(
        0.0, "length of an ascent step in units of the radius; 0 is 1 for one step, else 2/steps"
    )
    init: Literal["auto", "zeros", "uniform", "gaussian"] = setting(
        "auto", "where the ascent starts, or the kind of noise"
    )
    probe: float = setting(1.0, "length of vat's random probe in units of the radius; bfloat16 swallows a short one")
    proximity: float | None = setting(
        None,
        "weight of the divergence from what the parameters' running average predicts; auto is 1 with smart, else "
        "0; in the steps of --adversarial.start and every",
    )
    momentum: float = setting(0.99, "decay, a step, of that average")
    rdrop: float = setting(
        0.0,
        "weight of the symmetric divergence between two passes with different dropout (R-Drop), in the "
        "steps of --adversarial.start and every",
    )
    fraction: float | None = setting(None, "share of a microbatch's rows that is attacked, rounded down but to 1")
    every: int = setting(1, "attack every so many steps")
    delayed: bool = setting(False, "attack the rows of the step before, in place of fresh ones: no further cost (fgm)")
    loss: Literal["auto", "ce", "kl", "sym_kl"] = setting(
        "auto", "loss of attacked rows: cross-entropy, or divergence from the clean prediction"
    )
    weight: float = setting(1.0, "weight of an attacked row, a clean row having 1")
    start: float | None = setting(None, "share of the run before the first attack")
    special: tuple[int, ...] | None = setting(
        None,
        "ids, comma-separated, that are never perturbed or replaced; auto: the control pieces of the run's tokenizer",
    )

    def __post_init__(self):
        for name in ("examples", "every"):
            require(getattr(self, name) > 0, f"--adversarial.{name} must be at least 1")
        for name in ("radius", "steps", "step_size", "weight", "proximity", "rdrop"):
            value = getattr(self, name)
            require((value or 0) >= 0, f"{flag('adversarial.' + name)} {value} must not be negative")
        require(0 <= self.momentum < 1, f"--adversarial.momentum {self.momentum} must lie in [0, 1)")
        require(self.probe > 0, f"--adversarial.probe {self.probe} must be positive")
        require(
            self.method == "off" or self.fraction is None or 0 < self.fraction <= 1,
            f"--adversarial.fraction {self.fraction} must lie in (0, 1]; --adversarial.method off attacks no rows",
        )
        require(self.start is None or 0 <= self.start < 1, f"--adversarial.start {self.start} must lie in [0, 1)")
        require(self.method in ATTACKS, f"--adversarial.method {self.method!r} is none of {', '.join(ATTACKS)}")
        self._check(ATTACKS[self.method], f"--adversarial.method {self.method}")

    def _check(self, can: Method, name: str) -> None:
        """A setting that the method would not follow is an error, not a silence."""
        if self.method == "off":
            return
        require(
            self.loss in ("auto", *can.losses),
            f"{name} trains attacked rows with {' or '.join(can.losses)}; set --adversarial.loss so, or auto",
        )
        require(
            self.init in ("auto", *can.inits),
            f"{name} starts from {' or '.join(can.inits)}; set --adversarial.init so, or auto",
        )
        for few in (few for few in FEW if few not in can.follows):
            default, named = getattr(type(self), few), flag("adversarial." + few)
            require(getattr(self, few) == default, f"{name} does not look at {named}; leave it at {default}")
        require(can.steps or self.steps <= 1, f"{name} takes one step; leave --adversarial.steps at 0, or use pgd")
        require(
            self.method != "freelb" or self.steps != 1,
            f"{name} with one step never attacks; set --adversarial.steps to 2 or more",
        )
        require(can.examples or self.examples == 1, f"{name} makes one example of a row; set --adversarial.examples 1")
        require(
            self.method != "fgm" or self.examples == 1 or self.init in ("uniform", "gaussian"),
            f"{name} with several --adversarial.examples needs a random --adversarial.init to tell them apart",
        )
        require(
            not (self.rdrop or self.proximity) or not self.alone,
            f"{name}{' --adversarial.delayed true' * self.delayed} alters the main pass, so that nothing is summed "
            "with it; set --adversarial.rdrop 0 and --adversarial.proximity 0, or choose fgm, vat, r3f or smart",
        )
        plain = self.method == "fgm" and self.examples == 1 and self.init in ("auto", "zeros")
        require(
            not self.delayed or (plain and self.step_size in (0.0, 1.0)),
            "--adversarial.delayed goes with --adversarial.method fgm, one example, init zeros and step-size 0 or 1",
        )
        require(
            not self.delayed or (self.fraction or can.fraction) <= 0.5,
            f"--adversarial.delayed takes as many fresh rows again: --adversarial.fraction {self.fraction} must be "
            "at most 0.5",
        )

    @property
    def on(self) -> bool:
        """Whether anything is added to the loss."""
        return self.method != "off" or bool(self.rdrop or self.proximity)

    @property
    def alone(self) -> bool:
        """Whether the method alters the main pass."""
        return ATTACKS[self.method].alone or self.delayed

    @property
    def control(self) -> tuple[int, ...]:
        """The ids that are left alone; those of a new SentencePiece model where nobody has said."""
        return (0, 1, 2, 3) if self.special is None else self.special

    def first(self, steps: int) -> int:
        """The first step of a run of `steps` that attacks."""
        return math.ceil(self.settled().start * steps - 1e-9)

    def settled(self) -> "AdversarialConfig":
        """With every auto and 0 replaced by what the method takes."""
        can = ATTACKS[self.method]
        steps = self.steps or can.steps or 1
        own = (1.0 if steps == 1 else 2 / steps) if "step_size" in can.follows else 0.0

        def chosen(name: str, default: float) -> float:
            return default if getattr(self, name) is None else getattr(self, name)

        return dataclasses.replace(
            self,
            steps=steps,
            step_size=self.step_size or own,
            init=can.inits[0] if self.init == "auto" else self.init,
            loss=can.losses[0] if self.loss == "auto" else self.loss,
            proximity=chosen("proximity", float(self.method == "smart" and self.radius != 0)),
            **{name: chosen(name, getattr(can, name)) for name in ("radius", "fraction", "start")},
        )
