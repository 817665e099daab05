"""From a budget to a run: parameters, tokens and loss with their intervals, and a config that trains as it is."""

import json
import math
import time
from importlib.util import find_spec
from pathlib import Path

from chinchilla_jax.commands import cli
from chinchilla_jax.config import PENALTIES, require

SECTIONS = ("model", "data", "mesh", "train", "adversarial", "sparsity")


def options(parser) -> None:
    """Flags of this command."""
    budget = parser.add_argument_group("budget", "one of these, or two of flops, params, tokens and ratio")
    for name, what in (
        ("flops", "training FLOPs, 6 N D"),
        ("params", "parameters, as the law counts them"),
        ("tokens", "tokens of training"),
        ("loss", "loss to reach at the least compute, in the law's unit"),
        ("ratio", "tokens a parameter, beside another budget"),
        ("minutes", "time on this machine, which is measured for a few seconds"),
        ("hours", "time on --chips"),
    ):
        budget.add_argument(f"--{name}", type=float, metavar="X", help=what)
    budget.add_argument("--chips", default="", metavar="NAME", help="machine, such as v5p-256, v5e:4x4 or h100-8")
    bends = parser.add_argument_group("conditions", "what bends the law")
    bends.add_argument(
        "--unique-tokens", type=float, default=math.inf, metavar="U", help="tokens of text there are; more are repeats"
    )
    bends.add_argument("--inference-tokens", type=float, default=0.0, metavar="T", help="tokens to be generated later")
    bends.add_argument(
        "--sparsity", type=float, default=0.0, metavar="S", help="share of zeros; 0 is as the config says"
    )
    parser.add_argument("--law", default="auto", metavar="NAME", help="a published law or a law.json of `fit`")
    parser.add_argument("--level", type=float, default=0.8, metavar="P", help="of the intervals")
    parser.add_argument("--mfu", type=float, metavar="SHARE", help="of --chips' peak, in place of the roofline's")
    parser.add_argument("--out", default="", metavar="FILE", help="the plan; empty is plan.json in --run-dir")
    parser.add_argument("--compile", action="store_true", help="compile the step ahead of time for --chips (libtpu)")


def run(config, args) -> dict:
    """Answer, realise, price and write."""
    from chinchilla_jax.scaling import planner

    began = time.monotonic()
    require(0 < args.level < 1, f"--level {args.level:g} must lie inside (0, 1)")
    config = with_vocabulary(config)
    said = planner.asked(args, 1 if args.chips else devices_here())
    planned = planner.plan(config, said, measured if args.minutes is not None else None, step_multiple)
    if args.compile:
        planned |= {"compiled": compiled(planned, args.chips)}
    path = Path(args.out or Path(args.run_dir or ".", "plan.json"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(planned, indent=1) + "\n")
    print(table(planned))
    folder = args.run_dir or "runs/planned"
    store = Path(planned["config"]["data"]["store"], "manifest.json")
    following = cli.line("pretrain", "--plan", str(path), "--run-dir", folder)
    if not store.exists():
        following = cli.line("prepare", "--config", str(path)) + " && " + following
    return {**planned, "seconds": time.monotonic() - began, "wrote": [str(path)], "next": following}


def with_vocabulary(config):
    """`config` with the vocabulary of its token store where there is one and nothing else was said."""
    import dataclasses

    from chinchilla_jax.data.store import read_manifest

    if config.model.vocab_size or not Path(config.data.store, "manifest.json").exists():
        return config
    pieces = read_manifest(Path(config.data.store))["tokenizer"]["pieces"]
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=pieces))


def devices_here() -> int:
    """Devices of this machine that would share a batch; 1 where JAX is not installed."""
    if find_spec("jax") is None:
        return 1
    import jax

    return jax.device_count()


def step_multiple(config) -> float:
    """What the attacks of a config make of a step, over the whole run, in plain steps."""
    if config.adversarial.method == "off":
        return 1.0
    from chinchilla_jax.objectives.build import step_multiple as multiple

    return multiple(config)


def measured(config) -> float:
    """Tokens a second of the config's own step on this machine."""
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training.rate import tokens_per_second

    host.keep_freed_memory()
    return tokens_per_second(config)


def compiled(planned: dict, chips: str) -> dict:
    """The planned step as a TPU's compiler sees it."""
    from chinchilla_jax.aot import advice
    from chinchilla_jax.aot import compile as ahead
    from chinchilla_jax.config import Config, from_dict

    require(":" in chips, f"--compile needs a topology as --chips, such as v5e:4x4 or v5p:8x8x4, not {chips or 'none'}")
    report = ahead.report(from_dict(Config, planned["config"]), chips)
    print(advice.table(report))
    return report


def bent(real: dict, method: str) -> list[str]:
    """What zeros and attacks make of a run, where it has any."""
    lines = []
    if real["sparsity"]:
        worth = f"worth one of {real['dense_equivalent']:.2f} of the size"
        lines += [f"{100 * real['sparsity']:.3g} % zeros by {method}: trained at the price of a dense model, {worth}"]
    elif method in PENALTIES:
        lines += [f"nobody knows how many zeros {method} will make: without --sparsity the loss is a dense model's"]
    if real["step_multiple"] > 1:
        lines += [f"attacked rows make a step {real['step_multiple']:.3f} plain ones over the whole run"]
    return lines


def table(planned: dict) -> str:
    """The plan in words."""
    from chinchilla_jax.training.metrics import duration, si

    law, level = planned["law"], planned["level"]
    lines = [f"law: {law['name']} ({law['dataset']}, {law['unit']}, N = {law['count']}). {law['label']}"]
    lines += [f"warning: {law['note']}"] if law["note"] else []
    lines += ["", f"{'':<22}{'best':>10}   {100 * level:.0f} % interval"]
    for name, figure in planned["optimum"].items():
        show = {"loss": "{:.4f}".format, "flops": "{:.3g}".format}.get(name, si)
        between = f"{show(figure['interval'][0])} to {show(figure['interval'][1])}" if figure["interval"] else "unknown"
        lines.append(f"{name:<22}{show(figure['value']):>10}   {between}")
    lines += ["", "another size at the same compute:"]
    for row in planned["off_optimum"]:
        off = f"{row['params_factor']:g} x the parameters"
        lines.append(f"  {off:<24}{si(row['params']):>8} on {si(row['tokens']):>8}: {row['loss_percent']:+.2f} % loss")
    real, model, train = planned["realised"], planned["config"]["model"], planned["config"]["train"]
    rate = planned["config"]["optimizer"]["peak_lr"]
    lines += [
        "",
        f"a model that can be built: {model['layers']} layers of {model['d_model']}, {model['heads']} heads of "
        f"{model['head_dim']}, {model['d_ff']} hidden, {model['vocab_size']} pieces: {si(real['parameters'])}",
        f"{real['steps']:,} steps of {train['batch_size']} x {train['seq_len']} tokens = {si(real['tokens'])} tokens "
        f"({real['tokens_per_param']:.1f} a parameter), peak rate {rate:g}, {real['flops_6nd']:.3g} FLOPs",
        *bent(real, planned["config"]["sparsity"]["method"]),
        f"predicted loss {real['loss']:.4f}, {real['loss_percent_over_optimum']:+.2f} % over the optimum's",
        "",
        "what the published rules say of rate and batch:",
    ]
    for rule in planned["hyperparameters"]:
        where = "" if rule["inside"] else "  (outside its range)"
        rate = "-" if rule["peak_lr"] is None else f"{rule['peak_lr']:.2e}"
        lines.append(f"  {rule['rule']:<12} {rate:>8}  {si(rule['batch_tokens']):>7} tokens{where}")
    if price := planned["price"]:
        lines += [
            "",
            f"{planned['asked']['machine']['chips']} chips: {price['memory_bytes'] / 1e9:.1f} of "
            f"{price['memory_capacity_bytes'] / 1e9:.0f} GB each, {price['step_seconds']:.3g} s a plain step, "
            f"{100 * price['mfu']:.0f} % MFU, {duration(price['seconds'])} in all (by formula)",
        ]
    return "\n".join(lines)
