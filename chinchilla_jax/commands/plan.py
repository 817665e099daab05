"""From a budget to a run: parameters, tokens and loss with their intervals, and a config that trains as it is."""

import dataclasses
import time
from importlib.util import find_spec
from pathlib import Path

from chinchilla_jax.commands import cli, hints
from chinchilla_jax.config import PENALTIES, Config, expanded, from_dict, require
from chinchilla_jax.disk import is_remote, read_json, write_json
from chinchilla_jax.planning import ALONE

SECTIONS = ("model", "data", "mesh", "train", "adversarial", "corruption", "optimizer.weight_decay", "sparsity")
CLUSTER = True


def options(parser) -> None:
    """Flags of this command."""
    parser.set_defaults(decided=ALONE)
    budget = parser.add_argument_group("budget", "one of these, or two of flops, params, tokens and ratio")
    for name, what in (
        ("flops", "training FLOPs, as the law counts them"),
        ("params", "parameters, as the law counts them"),
        ("tokens", "tokens of training"),
        ("loss", "loss to reach at the least compute, in the law's unit"),
        ("ratio", "tokens a parameter, beside another budget"),
        ("minutes", "time on this machine, which is measured for a few seconds"),
        ("hours", "time on --chips"),
        ("usd", "money for --chips at --price"),
    ):
        budget.add_argument(f"--{name}", type=float, metavar="X", help=what)
    budget.add_argument("--chips", default="", metavar="NAME", help="machine, such as v5p-256, v5e:4x4 or h100-8")
    budget.add_argument(
        "--price", default="", metavar="USD", help='an hour of a chip, or a JSON file of them such as {"h100": 2.5}'
    )
    bends = parser.add_argument_group("conditions", "what bends the law")
    bends.add_argument(
        "--unique-tokens", type=float, metavar="U", help="tokens of text there are [the store's]; more are repeats"
    )
    bends.add_argument("--inference-tokens", type=float, default=0.0, metavar="T", help="tokens to be generated later")
    bends.add_argument(
        "--experts", type=float, default=0.0, metavar="E", help="of a mixture: N counts active parameters"
    )
    bends.add_argument(
        "--sparsity", type=float, default=0.0, metavar="S", help="share of zeros; 0 is as the config says"
    )
    parser.add_argument("--law", default="auto", metavar="NAME", help="a law by name or a law.json of `fit`")
    parser.add_argument("--level", type=float, default=0.9, metavar="P", help="of the intervals [0.9]")
    parser.add_argument("--mfu", type=float, metavar="SHARE", help="of --chips' peak, in place of the formula's")
    parser.add_argument("--out", default="", metavar="FILE", help="the plan; empty is plan.json in --run-dir")
    parser.add_argument("--compile", action="store_true", help="compile the step ahead of time for --chips (libtpu)")


def run(config, args) -> dict:
    """Answer, realise, price and write."""
    from chinchilla_jax.planning import asked as question
    from chinchilla_jax.planning import plan as planning

    began, path = time.monotonic(), Path(args.out or Path(args.run_dir or ".", "plan.json"))
    require(not path.is_dir(), f"--out {path}: this is a folder; name a file")
    cli.writable(path.parent, "--out" if args.out else "--run-dir")
    config, text = with_text(config, question.shape_given(args) or "data.vocab_size" in vars(args))
    said = question.asked(args, 1 if args.chips else devices_here(), **text)
    if args.minutes is not None:
        from chinchilla_jax.training.timed import TRAINING_SHARE

        said = dataclasses.replace(said, seconds=said.seconds * TRAINING_SHARE)  # as `pretrain --minutes` counts on it
    planned = planning.plan(config, said, measured if args.minutes is not None else None)
    planned["text"]["sources"] = by_source(config, planned["realised"]["tokens"])
    if args.compile:
        planned |= {"compiled": compiled(planned, args.chips)}
    if cli.speaks():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, planned)
    print(table(planned))
    train = ["pretrain", "--plan", str(path), "--run-dir", args.run_dir or "runs/planned"]
    following = hints.line(*train)
    if planned["text"]["unique_tokens"] is None and not said.tokenizer:
        known = said.own or "data.sources" in said.given
        name = config.data.store if "data.store" in vars(args) else "data/planned"
        text, store = ([], []) if known else (["--data.sources", "YOUR_TEXT"], ["--data.store", name])
        following = f"{hints.line('prepare', '--config', str(path), *text, *store)} && {hints.line(*train, *store)}"
    return {**planned, "seconds": time.monotonic() - began, "wrote": [str(path)], "next": following}


def manifest_of(store: str) -> dict:
    """The manifest of a token store, also of one on object storage; nothing where there is no store."""
    if is_remote(store):
        from chinchilla_jax.data import remote

        return remote.manifest(store)
    path = Path(expanded(store), "manifest.json")
    found = read_json(path, "prepare the store again") if path.exists() else {}
    own = not found or found.keys() >= {"splits", "tokenizer"}
    require(own, f"{path} is no token store's; name the folder of one with --data.store")
    return found


def with_text(config, told: bool = False) -> tuple:
    """`config` with the vocabulary of its token store, and what the manifest says.

    Where there is no store it gets that of --data.tokenizer, or, if `told`, the one that `prepare` will make.
    """
    pieces, text = config.data.vocab_size if told else 0, {}
    if manifest := manifest_of(config.data.store):
        pieces, tokens = manifest["tokenizer"]["pieces"], manifest["splits"]["train"]["tokens"]
        text = {"unique_tokens": tokens, "tokenizer": manifest["tokenizer"]["sha256"][:12]}
    elif config.data.tokenizer and not config.model.vocab_size:
        from chinchilla_jax.data.added_tokens import open_with_added

        pieces = open_with_added(config.data.tokenizer).size
    if config.model.vocab_size or not pieces:
        return config, text
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=pieces)), text


def by_source(config, tokens: float) -> list[dict]:
    """Unique tokens of each source of the token store, its share of `tokens` of training, and how often it is read."""
    if not (manifest := manifest_of(config.data.store)):
        return []
    found = [source for source in manifest["splits"]["train"].get("sources", ()) if source["tokens"]]
    if len(found) < 2:
        return []
    weights = (
        config.data.weights or manifest.get("settings", {}).get("weights") or [source["tokens"] for source in found]
    )
    return [
        {"name": source["name"], "unique_tokens": source["tokens"], "share": weight / sum(weights),
         "epochs": tokens * weight / sum(weights) / source["tokens"]}
        for source, weight in zip(found, weights)
    ]  # fmt: skip


def devices_here() -> int:
    """Devices of this machine that would share a batch; 1 where JAX is not installed."""
    if find_spec("jax") is None:
        return 1
    import jax

    return jax.device_count()


def measured(config) -> float:
    """Tokens a second of the config's own step on this machine."""
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training.throughput import tokens_per_second

    host.keep_freed_memory()
    return tokens_per_second(config)


def compiled(planned: dict, chips: str) -> dict:
    """The planned step as a TPU's compiler sees it."""
    require(":" in chips, f"--compile needs a topology as --chips, such as v5e:4x4 or v5p:8x8x4, not {chips or 'none'}")
    from chinchilla_jax.aot import advice
    from chinchilla_jax.aot import compile as ahead

    report = ahead.report(from_dict(Config, planned["config"]), chips)
    print(advice.table(report))
    return report


def amount(value: float) -> str:
    """1234567 -> 1.23M; thousands, millions, billions and trillions."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}" if value < 1e15 else f"{value:.3g}"
    return f"{value:.3g}"


def bent(real: dict, method: str) -> list[str]:
    """What zeros and attacks make of a run, where it has any."""
    from chinchilla_jax.planning.attacks import priced

    lines = []
    if real["sparsity"]:
        worth = f"worth one of {real['dense_equivalent']:.2f} of the size"
        lines += [f"{100 * real['sparsity']:.3g} % zeros by {method}: trained at the price of a dense model, {worth}"]
    elif method in PENALTIES:
        lines += [f"nobody knows how many zeros {method} will make: without --sparsity the loss is a dense model's"]
    if real["step_multiple"] > 1:
        lines += [priced(real["step_multiple"])]
    return lines


def table(planned: dict) -> str:
    """The plan in words."""
    law = planned["law"]
    forms = ", ".join(f"{one['form']} {one['weight']:.0%}" for one in law["forms"])
    lines = [
        f"law: {law['name']} ({law['dataset']}, {law['unit']}, N = {law['count']}; {forms}). {law['label']}".rstrip()
    ]
    lines += [f"warning: {line}" for line in planned["warnings"]]
    lines += ["", f"{'':<22}{'best':>10}   {100 * planned['level']:.0f} % interval", *_optimum(planned["optimum"])]
    lines += ["", "another size for the same loss:", *_sizes(planned["other_sizes"])]
    lines += ["", *_realised(planned), "", *_rules(planned["hyperparameters"])]
    others = "; ".join(
        f"{row['law']} {amount(row['params'])}, {row['tokens_per_param']:.3g} tokens a parameter"
        for row in planned["other_laws"]
    )
    lines += ["", f"other laws at this compute: {others}"]
    if price := planned["price"]:
        by = "--mfu" if planned["asked"]["mfu"] else "formula"
        machine, mesh = planned["asked"]["machine"], planned["config"]["mesh"]
        money = f", {price['usd']:,.0f} USD" if price["usd"] else ""
        lines += [
            "",
            f"{machine['chips']} {machine['kind']}, data {mesh['data']} fsdp {mesh['fsdp']} tensor {mesh['tensor']},"
            f" {planned['config']['train']['microbatches']} microbatches, remat {price['remat']}: "
            f"{price['memory_bytes'] / 1e9:.1f} of {price['memory_capacity_bytes'] / 1e9:.0f} GB each, "
            f"{price['step_seconds']:.3g} s a plain step, {100 * price['mfu']:.0f} % MFU, "
            f"{price['seconds'] / 3600:.3g} hours in all{money} (by {by})",
        ]
    return "\n".join(lines)


SHOWN = {"loss": "{:.4f}".format, "flops": "{:.3g}".format, "exponent_n": "{:.3f}".format}


def _optimum(optimum: dict) -> list[str]:
    lines = []
    for name, figure in optimum.items():
        show = SHOWN.get(name, amount)
        ends = figure.get("prediction") or figure["interval"]
        between = "unknown" if ends is None else " to ".join("never" if end is None else show(end) for end in ends)
        if figure.get("never"):
            between += f" ({figure['never']:.0%} of the replicates never get there)"
        lines.append(f"{name:<22}{show(figure['value']):>10}   {between}")
    return lines


def _sizes(other: dict) -> list[str]:
    lines = []
    for row in other["rows"]:
        off, more = f"{row['params_factor']:g} x the parameters", row["compute_percent"]
        cost = "never reach it" if more is None else f"{more:+.1f} % compute, on {amount(row['tokens'])} tokens"
        lines.append(
            f"  {off:<24}{amount(row['params']):>8}: {cost} ({row['loss_percent']:+.2f} % loss at the same compute)"
        )
    low, high = other["within_1_percent"]
    return [*lines, f"  {amount(low)} to {amount(high)} parameters cost less than 1 % more compute"]


def _realised(planned: dict) -> list[str]:
    real, model, train = planned["realised"], planned["config"]["model"], planned["config"]["train"]
    heads = f"{model['heads']} heads" + (f" ({model['kv_heads']} of keys)" if model["kv_heads"] else "")
    lines = [
        f"a model that can be built: {model['layers']} layers of {model['d_model']}, {heads} of "
        f"{model['head_dim']}, {model['d_ff']} hidden, {model['vocab_size']} pieces: {amount(real['parameters'])}",
        f"{real['steps']:,} steps of {train['batch_size']} x {train['seq_len']} = {amount(real['tokens'])} tokens "
        f"({real['tokens_per_param']:.1f} a parameter), "
        f"peak learning rate {planned['config']['optimizer']['peak_lr']:g}, {real['flops']:.3g} FLOPs",
        *bent(real, planned["config"]["sparsity"]["method"]),
        f"predicted loss {real['loss']:.4f}, {real['loss_percent_over_optimum']:+.2f} % over the best at these FLOPs",
    ]
    text = planned["text"]
    if text["unique_tokens"] is None:
        return [*lines, "name your text (--data.sources, or --data.store of one prepared) to know how often it is read"]
    again = text["repetition_percent"]
    between = "" if again["interval"] is None else " ({:.2f} to {:.2f})".format(*again["interval"])
    read = f"text: {amount(text['unique_tokens'])} tokens, read {text['epochs']:.3g} times"
    lines.append(f"{read}; repetition costs {again['value']:.2f} %{between} of the loss")
    lines += [planned["advice"]["said"]] if planned["advice"] else []
    for one in text.get("sources", ()):
        share, unique = f"{one['share']:.1%} of it", amount(one["unique_tokens"])
        lines.append(f"  {one['name']}: {unique} tokens, {share}, read {one['epochs']:.3g} times")
    return lines


def _rules(found: dict) -> list[str]:
    lines = []
    for what, show in (("rate", "{:.2e}".format), ("batch", lambda v: amount(v) + " tokens")):
        band = found[what]
        said = f"{show(band['low'])} to {show(band['high'])} by {', '.join(band['rules'])}" if band["rules"] else ""
        lines.append(
            f"{what:<6} {show(band['pick'])}: "
            + (said or "no published rule was measured at this scale; the nearest ones, extrapolated")
        )
    return [*lines, f"({found['note']})"]
