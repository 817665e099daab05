"""The plan of one run, whole: question, law, answer, a config for the machine, what it costs, what else it might be."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, ModelConfig, stored
from chinchilla_jax.planning import ALONE, hparams, ladder
from chinchilla_jax.planning.asked import SHAPE, Asked, overruled
from chinchilla_jax.planning.attacks import plain, step_multiple
from chinchilla_jax.planning.recipe import Machine, recipe
from chinchilla_jax.planning.repeated import advised
from chinchilla_jax.planning.roofline import roofline
from chinchilla_jax.planning.zeros import sparse, worth, zeros
from chinchilla_jax.scaling import counts, lawfile
from chinchilla_jax.scaling.answer import Question, answer, other_sizes, point
from chinchilla_jax.scaling.conditions import Conditions, bent, loss
from chinchilla_jax.scaling.lawfile import Form, LawFile, percentiles
from chinchilla_jax.scaling.published import ALLOCATIONS, law_of, mixture, published

GUESSED_FLOPS_PER_S = 1e11  # FLOP/s to begin with; the first round measures
ROUNDS, CLOSE = 6, 0.03  # of size -> speed -> budget -> size, until the budget moves by less
SMALL = "debian-cpu"  # our law of small runs, joined to the default one between the ranges of the two
LR_EXPONENT = 0.45  # of a ladder whose recipe does not say
KEEPS = (
    "model",
    "data",
    "objective",
    "adversarial",
    "corruption",
    "optimizer",
    "sparsity",
    "train.seq_len",
    "train.batch_size",
)

Throughput = Callable[[Config], float]  # tokens a second of a config on some machine

COUNTS: dict[str, Callable[[ModelConfig], float]] = {
    "n_total": counts.parameters,
    "n_nonembed": counts.non_embedding,
    "n_matmul": counts.matmul_parameters,
    "n_active": counts.parameters,  # of a dense model all
}


def plan(config: Config, said: Asked, measure: Throughput | None = None) -> dict[str, Any]:
    """Everything about the run that `said` asks for, as one JSON-able dict; its "config" trains as it is.

    `measure` tells the tokens a second of a config on this machine, for a budget in minutes. Raises `UserError`.
    """

    def multiple(config: Config) -> float:
        mesh = {"mesh.data": said.machine.chips // config.mesh.fsdp // config.mesh.tensor}  # not decided yet
        return step_multiple(settings.replace(config, mesh))

    throughput = attacked(measured_once(measure) if measure else machine_throughput(said), multiple)
    budgets = dict(said.budgets)
    if said.fixed and "params" not in budgets:
        budgets["params"] = float(counts.parameters(config.model))
    if said.seconds:
        budgets["flops"] = said.seconds * GUESSED_FLOPS_PER_S * (said.machine.chips if said.machine.kind else 1)
    for _ in range(ROUNDS if said.seconds else 0):
        found = _once(config, said, budgets)
        law, made = found["law"], found["made"]
        flops = law.per_nd * COUNTS[law.count](made.model) * said.seconds * throughput(made)
        if abs(math.log(flops / budgets["flops"])) < CLOSE:
            break
        budgets["flops"] = flops
    found = _once(config, said, budgets)

    def lasting(made: Config) -> Config:
        """Sizes come in steps; what they leave of the time is made up by the length."""
        return _lasting(made, said.seconds * throughput(made)) if said.seconds else made

    made = lasting(found["made"])
    read = made.train.steps * made.train.batch_size * made.train.seq_len / said.unique_tokens
    made, advice = advised(made, read, said.given, keeps_recipe(said, found["law"]))
    found["made"] = lasting(made)  # once more, since what is advised may have its price
    return report(said, attack=multiple(found["made"]), **found) | {"advice": advice}


def _lasting(made: Config, tokens: float) -> Config:
    """The run with as many steps as `tokens` are."""
    steps = max(1, round(tokens / (made.train.batch_size * made.train.seq_len)))
    warmup = min(steps, made.optimizer.warmup_steps)
    return settings.replace(made, {"train.steps": steps, "optimizer.warmup_steps": warmup})


def measured_once(measure: Throughput) -> Throughput:
    """The throughput of the first config measured, and of others by their FLOPs: measuring compiles for seconds."""
    done: list[float] = []

    def throughput(config: Config) -> float:
        flops = counts.flops_per_token(config.model, config.train.seq_len)
        if not done:
            done.append(measure(config) * flops)
        return done[0] / flops

    return throughput


def machine_throughput(said: Asked) -> Throughput:
    """Tokens a second on the machine that was named, by formula or at the user's own MFU."""

    def throughput(config: Config) -> float:
        return priced(config, said.machine, said.mfu)["tokens_per_second"]

    return throughput


def attacked(throughput: Throughput, multiple: Callable[[Config], float]) -> Throughput:
    """The throughput of configs that attack, from that of their plain steps."""

    def slower(config: Config) -> float:
        return throughput(plain(config)) / multiple(config)

    return slower


def _once(config: Config, said: Asked, budgets: dict[str, float]) -> dict[str, Any]:
    """The answer to a question with its budget in FLOPs, and the config that comes nearest to it."""
    law = law_for(said, budgets)
    base, left = kept(config, said, law)
    base = sparse(base, said.sparsity)
    equivalent = worth(base.sparsity, said.sparsity or zeros(base.sparsity))
    where = Conditions(said.unique_tokens, equivalent, said.generated)
    found = answer(law, Question(**budgets), where, said.level)
    N, D = found["params"]["value"], found["tokens"]["value"]
    if keeps_recipe(said, law):
        made = followed(base, law, N, D)
    else:
        sized = {"shape": not said.fixed, "length": said.length}
        made = recipe(base, N, D, COUNTS[law.count], said.machine, **sized)
    return {"law": law, "where": where, "found": found, "made": made, "left": left}


def keeps_recipe(said: Asked, law: LawFile) -> bool:
    """Whether the run follows the ladder that the law was measured on: the law is named, and no shape or machine."""
    return bool(law.recipe) and said.law != "auto" and not said.fixed and not said.machine.kind


def kept(config: Config, said: Asked, law: LawFile) -> tuple[Config, list[str]]:
    """The config to plan on, and what it leaves of the recipe that the law was measured with, one line each."""
    if not law.recipe or said.law == "auto":
        return config, []
    own = stored.from_json(law.recipe["config"])
    base = config if said.own else settings.replace(own, {k: v for k, v in said.given.items() if k not in ALONE})
    off = settings.differences(settings.to_dict(own), settings.to_dict(base))
    shape = tuple(f"model.{name}" for name in (*SHAPE, "init_std"))
    left = [
        f"leaves the law's recipe: {name} {old} -> {new}"
        for name, (old, new) in off.items()
        if name.startswith(KEEPS) and not name.startswith((*shape, "data.store", "optimizer.warmup", "optimizer.decay"))
    ]
    if said.tokenizer and said.tokenizer != law.tokenizer:
        left.append(f"leaves the law's recipe: tokenizer {law.tokenizer} -> {said.tokenizer}; losses do not compare")
    return base, left


def followed(base: Config, law: LawFile, N: float, D: float) -> Config:
    """The run of the law's own ladder that is nearest: its shapes, batch, schedule, rate and warm-up."""
    model = ladder.rung(base.model, N, COUNTS[law.count])
    steps = max(10, int(N * D / COUNTS[law.count](model) / base.train.batch_size / base.train.seq_len))
    run = ladder.configured(base, model, steps, [steps], law.recipe.get("lr_exponent", LR_EXPONENT))
    return settings.replace(run, {"train.eval_every": 0, "train.log_every": max(1, steps // 100)})


def law_for(said: Asked, budgets: dict[str, float]) -> LawFile:
    """The law that was named, or our own of the budget's compute."""
    if said.experts:
        theta = (*dataclasses.astuple(mixture(said.experts))[:5], 0.0)
        label = f"{said.experts:g} experts: Ludziejewski et al. 2025, arXiv:2502.05172; the config is its dense twin"
        ranges = dict.fromkeys(("N", "D", "C", "loss"), lawfile.EVERYWHERE)
        return LawFile("mixture-of-experts", (Form("chinchilla", theta),), ranges, count="n_active", label=label)
    if said.law != "auto":
        return law_of(said.law)
    law = lawfile.default()
    for _ in range(0 if "loss" in budgets else ROUNDS):
        law = joined(law.per_nd * math.prod(point(law, Question(**budgets))))
    return law


def joined(C: float) -> LawFile:
    """Our small law up to its largest run, the default one from its smallest, and between the two the nearer of them
    with its optimum moved so that ln N* goes from the one to the other in ln C."""
    small, large = lawfile.shipped()[SMALL], lawfile.default()
    low, high = math.log(small.ranges["C"][1]), math.log(large.ranges["C"][0])
    share = min(max((math.log(C) - low) / (high - low), 0.0), 1.0)
    near = small if share < 0.5 else large
    if share in (0.0, 1.0):
        return near
    sizes = [float(law.surface.optimum(C, law.per_nd)[0]) for law in (small, large)]
    wanted = math.exp((1 - share) * math.log(sizes[0]) + share * math.log(sizes[1]))
    moved = math.log(wanted / sizes[0 if near is small else 1])
    label = f"{near.label} Between the runs of {small.name} and {large.name} their sizes are joined."
    return dataclasses.replace(near, label=label, forms=tuple(_moved(one, moved) for one in near.forms))


def _moved(one: Form, by: float) -> Form:
    """A form whose optimum of any budget is exp(`by`) times as large, at the same loss for a budget's optimum."""

    def shift(theta: np.ndarray) -> np.ndarray:
        theta = np.array(theta, np.float64)
        theta[..., 0] += theta[..., 3] * by
        theta[..., 1] -= theta[..., 4] * by
        return theta

    draws = None if one.draws is None else shift(one.draws)
    return dataclasses.replace(one, theta=tuple(map(float, shift(one.theta))), draws=draws)


def priced(config: Config, machine: Machine, mfu: float | None = None) -> dict[str, Any]:
    """Memory, seconds and use of the machine of a plain step, by formula; seconds by the user's own `mfu`, if given."""
    train, mesh, model = config.train, config.mesh, config.model
    remat = "projections" if model.remat == "auto" else model.remat
    tokens = train.batch_size * train.seq_len
    found = roofline(
        model, tokens, train.seq_len, machine.chips, machine.kind, mesh.fsdp, mesh.tensor, train.microbatches, remat
    )
    work, seconds = found["mfu"] * found["step_seconds"], found.pop("expected_seconds")
    mfu, seconds = (mfu, work / mfu) if mfu else (work / seconds, seconds)
    return {**found, "step_seconds": seconds, "mfu": mfu, "tokens_per_second": tokens / seconds, "remat": remat}


def report(
    said: Asked, law: LawFile, where: Conditions, found: dict, made: Config, left: list[str], attack: float
) -> dict[str, Any]:
    """The plan as a dict: answer, law, realised run, price, other sizes and laws, config."""
    model, train = made.model, made.train
    N, tokens = COUNTS[law.count](model), train.steps * train.batch_size * train.seq_len
    C = law.per_nd * N * tokens
    predicted = float(loss(law.surface, N, tokens, where))
    best = loss(law.surface, *point(law, Question(flops=C), where), where)
    cost = priced(made, said.machine, said.mfu) if said.machine.kind else {}
    if cost:
        cost["seconds"] = attack * cost["step_seconds"] * train.steps
        cost["usd"] = cost["seconds"] / 3600 * said.machine.chips * said.price or None
    at = hparams.scale(model, tokens)
    bands = {what: dataclasses.asdict(hparams.band(at, what)) for what in ("rate", "batch")}
    names = ("name", "label", "dataset", "tokenizer", "unit", "count", "accounting", "per_nd", "runs", "ranges")
    forms = [{"form": one.form, "weight": one.weight} for one in law.forms]
    return {
        "asked": {
            **said.budgets,
            "seconds": said.seconds or None,
            "machine": dataclasses.asdict(said.machine),
            "mfu": said.mfu,
        },
        "law": {**{name: getattr(law, name) for name in names}, "forms": forms, "inside": law.inside(N, tokens)},
        "warnings": law.warnings(N, tokens) + left + overruled(said.given, made),
        "level": said.level,
        "optimum": found,
        "other_sizes": other_sizes(law, found["params"]["value"], found["tokens"]["value"], where),
        "other_laws": other_laws(C),
        "text": text_of(said, law, N, tokens, where),
        "realised": {
            "params_as_counted": N,
            "parameters": counts.parameters(model),
            "parameters_non_embedding": counts.non_embedding(model),
            "tokens": tokens,
            "tokens_per_param": tokens / N,
            "steps": train.steps,
            "batch_tokens": train.batch_size * train.seq_len,
            "flops": C,
            "flops_palm": counts.flops_per_token(model, train.seq_len) * tokens,
            "step_multiple": attack,
            "sparsity": said.sparsity or zeros(made.sparsity),
            "dense_equivalent": where.dense_equivalent,
            "loss": predicted,
            "loss_percent_over_optimum": 100 * (predicted / float(best) - 1),
        },
        "hyperparameters": {"rules": hparams.comparison(at), **bands, "note": hparams.BAND_COST},
        "price": cost,
        "config": settings.to_dict(made),
    }


def text_of(said: Asked, law: LawFile, N: float, D: float, where: Conditions) -> dict[str, Any]:
    """How often a run reads its text, and what reading again costs against fresh text, in per cent of the loss."""
    if not math.isfinite(said.unique_tokens):
        return {"unique_tokens": None, "epochs": None, "repetition_percent": None}
    plain = dataclasses.replace(where, unique_tokens=math.inf)
    found = {"unique_tokens": said.unique_tokens, "epochs": D / said.unique_tokens}
    size = where.dense_equivalent * N

    def cost(surface: Any) -> Any:
        return 100 * (bent(surface, where).loss(size, D) / bent(surface, plain).loss(size, D) - 1)

    value = {"value": float(cost(law.surface)), "interval": None}
    if law.draws is not None:
        value["interval"] = list(percentiles(cost(law.replicates), said.level))
    return found | {"repetition_percent": value}


def other_laws(C: float) -> list[dict[str, Any]]:
    """What published laws and lines say of C FLOPs, as 6 N D."""
    rows = []
    for name in ("epoch-exact", "hoffmann-tex", "hoffmann-1", "hoffmann-2", "muennighoff-c4"):
        known = ALLOCATIONS[name] if name in ALLOCATIONS else published(name).surface
        N, D = map(float, known.optimum(C))
        rows.append({"law": name, "params": N, "tokens_per_param": D / N})
    return rows
