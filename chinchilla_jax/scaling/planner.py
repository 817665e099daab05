"""The plan of one run, whole: question, law, answer, a config for the machine, what it costs, what else it might be."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, ModelConfig, require
from chinchilla_jax.scaling import counts, hparams, lawfile
from chinchilla_jax.scaling import plan as plans
from chinchilla_jax.scaling.lawfile import Law
from chinchilla_jax.scaling.optimum import Conditions
from chinchilla_jax.scaling.plan import Question
from chinchilla_jax.scaling.published import published
from chinchilla_jax.scaling.recipe import Machine, parse_chips, recipe
from chinchilla_jax.scaling.roofline import roofline
from chinchilla_jax.scaling.zeros import sparse, worth, zeros

SHAPE = ("preset", "layers", "d_model", "heads", "kv_heads", "head_dim", "d_ff")
GUESSED_RATE = 1e11  # FLOP/s to begin with; the first round measures
REACHED = 0.6  # of the roofline: what good TPU and GPU code bases report as 50 to 60 % MFU where it allows 90
ROUNDS, CLOSE = 6, 0.03  # of size -> speed -> budget -> size, until the budget moves by less

Rate = Callable[[Config], float]  # tokens a second of a config on some machine


@dataclass(frozen=True)
class Asked:
    """What the user has said: budgets, a time and where, conditions, the law, whether the model's shape stands."""

    budgets: dict[str, float]
    seconds: float
    machine: Machine
    mfu: float | None
    unique_tokens: float
    generated: float
    sparsity: float
    law: str
    level: float
    fixed: bool
    length: int = 0  # tokens of a window; 0 follows the size


def asked(args: Any, devices: int) -> Asked:
    """The question in the command line; `UserError` where it asks for nothing, too much, or what cannot be.

    `devices` that are here share the batch where no other machine is named.
    """
    names = [name for name in ("flops", "params", "tokens", "loss", "ratio") if getattr(args, name) is not None]
    timed = [name for name in ("minutes", "hours") if getattr(args, name) is not None]
    require(len(timed) < 2, "--minutes is for this machine and --hours for --chips; give one")
    require("hours" not in timed or args.chips, "--hours needs --chips, such as v5p-256")
    require("minutes" not in timed or not args.chips, "--minutes measures this machine; for --chips give --hours")
    seconds = {"minutes": 60.0, "hours": 3600.0}[timed[0]] * getattr(args, timed[0]) if timed else 0.0
    require(not timed or (seconds > 0 and math.isfinite(seconds)), f"--{''.join(timed)} must be a positive time")
    require(not timed or set(names) <= {"params", "ratio"}, "a time is a budget: beside it only --params or --ratio")
    require(0 <= args.sparsity < 1, f"--sparsity {args.sparsity:g} must lie in [0, 1)")
    target, method = vars(args).get("sparsity.target", args.sparsity), vars(args).get("sparsity.method")
    require(
        args.sparsity in (0, target),
        f"--sparsity {args.sparsity:g} and --sparsity.target {target:g} contradict each other; leave one out",
    )
    require(
        not args.sparsity or method != "off", f"--sparsity {args.sparsity:g} needs another --sparsity.method than off"
    )
    require(args.inference_tokens >= 0, f"--inference-tokens {args.inference_tokens:g} must not be negative")
    require(args.unique_tokens > 0, f"--unique-tokens {args.unique_tokens:g} must be positive")
    require(args.mfu is None or 0 < args.mfu <= 1, f"--mfu {args.mfu} must lie in (0, 1]")
    return Asked(
        {name: getattr(args, name) for name in names},
        seconds,
        parse_chips(args.chips) if args.chips else Machine(chips=devices),
        args.mfu,
        args.unique_tokens,
        args.inference_tokens,
        args.sparsity,
        args.law,
        args.level,
        shape_given(args),
        vars(args).get("train.seq_len", 0),
    )


def shape_given(args: Any) -> bool:
    """Whether the command line itself says what the model looks like."""
    return any(f"model.{name}" in vars(args) for name in SHAPE)


def timed(seconds: float, unique_tokens: float, devices: int, *, fixed: bool) -> Asked:
    """The question of a run on this machine that is to train for so long, on so much text."""
    return Asked({}, seconds, Machine(chips=devices), None, unique_tokens, 0.0, 0.0, "auto", 0.8, fixed)


def plan(
    config: Config, said: Asked, measure: Rate | None = None, multiple: Rate = lambda config: 1.0
) -> dict[str, Any]:
    """Everything about the run that `said` asks for, as one JSON-able dict; its "config" trains as it is.

    `measure` tells the tokens a second of a config on this machine, for a budget in minutes; `multiple` what attacks
    make of a step, over the whole run, in plain steps. Raises `UserError`.
    """
    config = sparse(config, said.sparsity)
    multiple = settled(multiple, said.machine)
    rate = attacked(measured_once(measure) if measure else machine_rate(said), multiple)
    budgets = dict(said.budgets)
    if said.fixed and "params" not in budgets:
        budgets["params"] = float(counts.parameters(config.model))
    if said.seconds:
        budgets["flops"] = said.seconds * GUESSED_RATE * (said.machine.chips if said.machine.kind else 1)
    law = choose(said.law, budgets)
    found = _once(config, said, law, budgets)
    for _ in range(ROUNDS if said.seconds else 0):
        made = found["made"]
        tokens = said.seconds * rate(made)
        flops = plans.FLOPS * COUNTS[law.count](made.model) * tokens
        if abs(math.log(flops / budgets["flops"])) < CLOSE:
            break
        budgets["flops"] = flops
        law = choose(said.law, budgets)
        found = _once(config, said, law, budgets)
    if said.seconds:  # sizes come in steps; what they leave of the time is made up by the length
        found["made"] = _lasting(found["made"], said.seconds * rate(found["made"]))
    return report(said, law, attack=multiple(found["made"]), **found)


def _lasting(made: Config, tokens: float) -> Config:
    """The run with as many steps as `tokens` are."""
    steps = max(1, round(tokens / (made.train.batch_size * made.train.seq_len)))
    return settings.replace(
        made, {"train.steps": steps, "optimizer.warmup_steps": min(steps, made.optimizer.warmup_steps)}
    )


def measured_once(measure: Rate) -> Rate:
    """The rate of the first config measured, and of others by their FLOPs: every measurement compiles for seconds."""
    done: list[float] = []

    def rate(config: Config) -> float:
        flops = counts.flops_per_token(config.model, config.train.seq_len)
        if not done:
            done.append(measure(config) * flops)
        return done[0] / flops

    return rate


def machine_rate(said: Asked) -> Rate:
    """Tokens a second on the machine that was named, by the roofline or at the user's own MFU."""

    def rate(config: Config) -> float:
        found = priced(config, said.machine)
        scale = said.mfu / found["mfu"] if said.mfu else 1.0
        return scale * found["tokens_per_second"]

    return rate


def attacked(rate: Rate, multiple: Rate) -> Rate:
    """The rate of configs that attack, from that of their plain steps."""

    def slower(config: Config) -> float:
        return rate(settings.replace(config, {"adversarial.method": "off"})) / multiple(config)

    return slower


def settled(multiple: Rate, machine: Machine) -> Rate:
    """The multiple of configs whose mesh and kernels are not decided yet."""

    def of(config: Config) -> float:
        mesh = {"mesh.data": machine.chips // config.mesh.fsdp, "model.kernels": "reference"}  # nothing is computed
        return multiple(settings.replace(config, mesh))

    return of


def _once(config: Config, said: Asked, law: Law, budgets: dict[str, float]) -> dict[str, Any]:
    """The answer to a question with its budget in FLOPs, and the config that comes nearest to it."""
    equivalent = worth(config.sparsity, said.sparsity or zeros(config.sparsity))
    where = Conditions(said.unique_tokens, equivalent, said.generated)
    answer = plans.answer(law, Question(**budgets), where, said.level)
    N, D = answer["params"]["value"], answer["tokens"]["value"]
    sized = {"shape": not said.fixed, "length": said.length}
    made = recipe(config, N, D, COUNTS[law.count], said.machine, **sized)
    return {"where": where, "answer": answer, "made": made}


COUNTS: dict[str, Callable[[ModelConfig], float]] = {
    "n_total": counts.parameters,
    "n_nonembed": counts.non_embedding,
    "n_matmul": counts.matmul_parameters,
}


def choose(name: str, budgets: dict[str, float]) -> Law:
    """The named law or file, or of our own laws the one whose range of compute is nearest to the budget's."""
    if name == "auto":
        N, D = plans.point(lawfile.default(), Question(**budgets), Conditions())
        return min(lawfile.shipped().values(), key=lambda law: _distance(law, plans.FLOPS * N * D))
    if Path(name).suffix == ".json":
        return lawfile.load(Path(name))
    return lawfile.default() if name == "epoch-exact" else _without_runs(name)


def _without_runs(name: str) -> Law:
    """A published law whose runs nobody has: no intervals."""
    found = published(name)
    s = found.surface
    return Law(
        name,
        "skaling" if s.k != 1 else "chinchilla",
        (s.a, s.b, s.e, s.alpha, s.beta, math.log(s.k)),
        dict(found.ranges),
        count=found.count,
        dataset=found.dataset,
        tokenizer=found.tokenizer,
        label=f"{found.source}. {found.warning}".strip(),
    )


def _distance(law: Law, C: float) -> float:
    """How far C lies outside the law's range, in ln."""
    low, high = law.ranges["C"]
    return max(0.0, math.log(low / C), math.log(C / high))


def described(law: Law, N: float, D: float) -> dict[str, Any]:
    """What a law is, and whether a run lies inside the runs that it was fitted to."""
    names = ("name", "label", "dataset", "tokenizer", "unit", "count", "accounting", "form", "runs", "ranges")
    inside = law.inside(N, D)
    ranges = ", ".join(f"{name} {low:.2g} to {high:.2g}" for name, (low, high) in law.ranges.items())
    note = "" if inside else f"outside the runs that the law was fitted to ({ranges}): an extrapolation"
    return {**{name: getattr(law, name) for name in names}, "inside": inside, "note": note}


def priced(config: Config, machine: Machine) -> dict[str, Any]:
    """Memory, seconds and use of the machine of a plain step, by formula."""
    train, mesh = config.train, config.mesh
    found = roofline(
        config.model,
        train.batch_size * train.seq_len,
        train.seq_len,
        machine.chips,
        machine.kind,
        mesh.fsdp,
        mesh.tensor,
        train.microbatches,
    )
    found["step_seconds"] /= REACHED
    return {**found, "mfu": REACHED * found["mfu"], "tokens_per_second": REACHED * found["tokens_per_second"]}


def report(said: Asked, law: Law, where: Conditions, answer: dict, made: Config, attack: float) -> dict[str, Any]:
    """The plan as a dict: answer, law, realised run, price, neighbours, config."""
    model, train = made.model, made.train
    N, tokens = COUNTS[law.count](model), train.steps * train.batch_size * train.seq_len
    loss = float(plans.best.loss(law.surface, N, tokens, where))
    best = plans.best.loss(law.surface, *plans.point(law, Question(flops=plans.FLOPS * N * tokens), where), where)
    price = priced(made, said.machine) if said.machine.kind else {}
    if price:
        price["seconds"] = attack * price["step_seconds"] * train.steps
    return {
        "asked": {**said.budgets, "seconds": said.seconds or None, "machine": dataclasses.asdict(said.machine)},
        "law": described(law, N, tokens),
        "level": said.level,
        "optimum": answer,
        "off_optimum": plans.off_optimum(law.surface, answer["params"]["value"], answer["tokens"]["value"], where),
        "realised": {
            "params_as_counted": N,
            "parameters": counts.parameters(model),
            "parameters_non_embedding": counts.non_embedding(model),
            "tokens": tokens,
            "tokens_per_param": tokens / N,
            "steps": train.steps,
            "batch_tokens": train.batch_size * train.seq_len,
            "flops_6nd": plans.FLOPS * N * tokens,
            "flops_palm": counts.flops_per_token(model, train.seq_len) * tokens,
            "step_multiple": attack,
            "sparsity": said.sparsity or zeros(made.sparsity),
            "dense_equivalent": where.dense_equivalent,
            "loss": loss,
            "loss_percent_over_optimum": 100 * (loss / float(best) - 1),
        },
        "hyperparameters": hparams.comparison(model, tokens),
        "price": price,
        "config": settings.to_dict(made),
    }
