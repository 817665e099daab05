"""What attacks and corrupted tokens cost, in plain steps, by formula."""

from chinchilla_jax.config import AdversarialConfig, Config, CorruptionConfig, whole_rows
from chinchilla_jax.scaling import counts

# What E examples and K ascent steps cost beside the plain step, in steps of the attacked rows alone: a pass is one, its
# gradient in the embeddings alone two thirds.
COSTS = {
    "off": lambda E, K: 0,
    "fgm": lambda E, K: E,
    "vat": lambda E, K: E * (1 + 2 / 3 * K),
    "pgd": lambda E, K: E - 1 + 2 / 3 * K * E,
    "noise": lambda E, K: E - 1,
    "freelb": lambda E, K: K - 1,
    "r3f": lambda E, K: E,
    "smart": lambda E, K: E * (1 + 2 / 3 * K),
    "softmax_margin": lambda E, K: 0,
}
PROXIMITY, RDROP, TWICE, SLOPE = 1 / 3, 1.0, 2 / 3, 2 / 3  # in steps of all rows; TWICE: a clean pass pulled back again
HEAD = 4 / 3  # of a head's products: two predictions and the gradients of one, of rows that have no label to learn


def priced(multiple: float) -> str:
    """The line that says how many plain steps a step costs."""
    return f"what is attacked or replaced makes a step cost {multiple:.3f} plain ones, on average over the run"


def plain(config: Config) -> Config:
    """`config` without anything that is added to its loss."""
    return Config(**vars(config) | {"adversarial": AdversarialConfig(), "corruption": CorruptionConfig()})


def step_multiple(config: Config) -> float:
    """What a step costs over a whole run, in plain steps; heads of divergences count where nothing else is paid."""
    cfg, noisy = config.adversarial.settled(), config.corruption
    attacking = (1 - cfg.first(config.train.steps) / config.train.steps) / cfg.every
    passes = COSTS[cfg.method](cfg.examples, cfg.steps) if cfg.radius and not cfg.delayed else 0
    moved = bool(cfg.proximity or cfg.rdrop)  # the clean branch learns from a divergence
    beside = PROXIMITY * bool(cfg.proximity) + RDROP * bool(cfg.rdrop)
    beside += TWICE * bool(moved and ((passes and cfg.method == "fgm") or (noisy.copies and noisy.slopes)))
    always = 0.0
    if cfg.delayed and cfg.radius and cfg.loss != "ce":  # paid from the first step on
        head = 6 * counts.sizes(config.model).table / counts.flops_per_token(config.model, config.train.seq_len)
        always += HEAD * head * paid(config, cfg.fraction)
    if noisy.share:
        first, end = noisy.window(config.train.steps)
        window = (end - first) / config.train.steps
        always += window * paid(config, noisy.copies) if noisy.copies else SLOPE * noisy.slopes
    return 1 + attacking * (beside + passes * paid(config, cfg.fraction)) + always


def paid(config: Config, fraction: float) -> float:
    """A share of the rows as it is paid for: whole rows, filled up until the devices divide them."""
    rows = config.train.batch_size // config.train.microbatches
    n = whole_rows(fraction, rows)
    return (n + -n % abs(config.mesh.data * config.mesh.fsdp)) / rows
