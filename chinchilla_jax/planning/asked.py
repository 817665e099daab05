"""The question of a plan as a command line has it: budgets, a time or money, a machine, conditions, the law."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, require
from chinchilla_jax.disk import read_json
from chinchilla_jax.planning.recipe import Machine, parse_chips

DECIDED = (  # settings that a plan has a say in
    "model.", "mesh.", "train.", "data.vocab_size", "optimizer.peak_lr", "optimizer.schedule", "optimizer.warmup_steps",
)  # fmt: skip
SHAPE = ("preset", "layers", "d_model", "heads", "kv_heads", "head_dim", "d_ff")


@dataclass(frozen=True)
class Asked:
    """What the user has said: budgets, a time and where, conditions, the law, whether the model's shape stands.

    `given` are the settings of the command line, `own` whether a config of the user's own stands behind them;
    `tokenizer` is that of the text.
    """

    budgets: dict[str, float]
    seconds: float = 0.0
    machine: Machine = field(default_factory=Machine)
    mfu: float | None = None
    unique_tokens: float = math.inf
    generated: float = 0.0
    sparsity: float = 0.0
    law: str = "auto"
    level: float = 0.9
    fixed: bool = False
    length: int = 0  # tokens of a window; 0 follows the size
    experts: float = 0.0
    price: float = 0.0  # USD an hour of a chip
    given: dict[str, Any] = field(default_factory=dict)
    own: bool = False
    tokenizer: str = ""


def asked(args: Any, devices: int, **text: Any) -> Asked:
    """The question in the command line; `UserError` where it asks for nothing, too much, or what cannot be.

    `devices` that are here share the batch where no other machine is named; `text` is what the store says of it.
    """
    names = [name for name in ("flops", "params", "tokens", "loss", "ratio") if getattr(args, name) is not None]
    timed = [name for name in ("minutes", "hours", "usd") if getattr(args, name) is not None]
    shown = ", ".join(f"--{name}" for name in timed)
    require(len(timed) < 2, f"{shown}: --minutes is for this machine, --hours and --usd for --chips; give one")
    require(timed in ([], ["minutes"]) or args.chips, f"{shown} needs --chips, such as v5p-256")
    require("minutes" not in timed or not args.chips, "--minutes measures this machine; for --chips give --hours")
    machine, price = parse_chips(args.chips) if args.chips else Machine(chips=devices), 0.0
    if args.price:
        price = priced_at(args.price, machine.kind)
    require("usd" not in timed or price > 0, "--usd needs --price: USD an hour of a chip, or a JSON file of them")
    unit = {"minutes": 60.0, "hours": 3600.0, "usd": 3600.0 / (price or 1) / machine.chips}
    seconds = unit[timed[0]] * getattr(args, timed[0]) if timed else 0.0
    require(not timed or (seconds > 0 and math.isfinite(seconds)), f"{shown} must be a positive number")
    require(not timed or set(names) <= {"params", "ratio"}, "a time is a budget: beside it only --params or --ratio")
    _check(args)
    for name in ("price", "mfu"):
        require(args.chips or not getattr(args, name), f"--{name} is of --chips; name them, such as v5p-256")
    given = {name: value for name, value in vars(args).items() if "." in name}
    if args.unique_tokens is not None:
        text["unique_tokens"] = args.unique_tokens
    return Asked(
        {name: getattr(args, name) for name in names}, seconds, machine, args.mfu, generated=args.inference_tokens,
        sparsity=args.sparsity, law=args.law, level=args.level, fixed=shape_given(args), experts=args.experts,
        length=given.get("train.seq_len", 0), price=price, given=given, own=bool(args.config), **text,
    )  # fmt: skip


def _check(args: Any) -> None:
    require(0 < args.level < 1, f"--level {args.level:g} must lie inside (0, 1)")
    require(0 <= args.sparsity < 1, f"--sparsity {args.sparsity:g} must lie in [0, 1)")
    target, method = vars(args).get("sparsity.target", args.sparsity), vars(args).get("sparsity.method")
    require(
        args.sparsity in (0, target),
        f"--sparsity {args.sparsity:g} and --sparsity.target {target:g} contradict each other; leave one out",
    )
    wants = f"--sparsity {args.sparsity:g} needs another --sparsity.method than off"
    require(not args.sparsity or method != "off", wants)
    require(args.inference_tokens >= 0, f"--inference-tokens {args.inference_tokens:g} must not be negative")
    unique = args.unique_tokens
    require(unique is None or unique > 0, f"--unique-tokens {unique or 0:g} must be positive")
    require(args.mfu is None or 0 < args.mfu <= 1, f"--mfu {args.mfu} must lie in (0, 1]")
    require(not args.experts or args.law == "auto", "--experts has a law of its own; leave --law out")


def priced_at(text: str, kind: str) -> float:
    """USD an hour of a chip: a number, or the entry of `kind` in a JSON file."""
    fix = f"--price {text}: a number of USD an hour of a chip, or a JSON file such as " + '{"h100": 2.5}'
    try:
        price = float(text)
    except ValueError:
        require(Path(text).is_file(), fix)
        found = read_json(Path(text), "correct it")
        require(kind in found, f"--price {text}: no price of {kind}; it has {', '.join(found)}")
        price = found[kind]
    require(isinstance(price, int | float) and 0 <= price < math.inf, f"{fix}, not {price!r}")
    return float(price)


def shape_given(args: Any) -> bool:
    """Whether the command line itself says what the model looks like."""
    return any(f"model.{name}" in vars(args) for name in SHAPE)


def overruled(given: dict[str, Any], made: Config) -> list[str]:
    """The settings of the command line that the plan `made` decides otherwise, one line each."""
    found = []
    for name, value in given.items():
        own = tuple(value) if isinstance(value, list) else value
        if name.startswith(DECIDED) and own not in (None, "auto", has := settings.get(made, name)):
            asked = f"{settings.flag(name)} {own}"
            found.append(f"{asked} is not followed, the plan decides on {has}; give it to pretrain beside --plan")
    return found


def timed(seconds: float, unique_tokens: float, devices: int, args: Any) -> Asked:
    """The question of a run on this machine that is to train for so long, on so much text, with what `args` set."""
    given = {name: value for name, value in vars(args).items() if "." in name}
    return Asked(
        {}, seconds, Machine(chips=devices), unique_tokens=unique_tokens, fixed=shape_given(args),
        length=given.get("train.seq_len", 0), given=given,
    )  # fmt: skip
