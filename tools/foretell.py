"""Foretell the loss of a run before it is begun: the shape next to a law's optimum, its config, and the interval.

    python tools/foretell.py chinchilla_jax/scaling/data/debian_cpu.json configs/sweep_cpu.py --flops 1e14 \\
        --out docs/scaling

The run follows the rules of the ladder that the law was fitted to (`scaling/ladder.py`). Writes prediction.json (what
is foretold) and prediction_config.json (what `pretrain` is to run).
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chinchilla_jax import config as settings
from chinchilla_jax.commands import cli
from chinchilla_jax.commands.pretrain import open_store
from chinchilla_jax.scaling import counts, ladder, lawfile

LEVELS = (0.8, 0.9, 0.95)


def main() -> None:
    """Parse, foretell, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("law", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("--flops", type=float, required=True, help="training FLOPs as the law counts them")
    parser.add_argument("--lr-exponent", type=float, default=0.45)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    law = lawfile.load(args.law)
    assert law.count == "n_total", f"{args.law} counts {law.count}; the ladder counts n_total"
    base, store = open_store(cli.load(args.config))
    base = settings.replace(base, {"train.seed": args.seed})
    best_n, best_d = law.surface.optimum(args.flops, law.flops)
    model = ladder.rung(base.model, float(best_n))
    params, batch_tokens = counts.parameters(model), base.train.batch_size * base.train.seq_len
    steps = int(args.flops / law.flops / params / batch_tokens)
    run = ladder.configured(base, model, steps, [steps], args.lr_exponent)
    run = settings.replace(run, {"train.eval_every": 0, "train.log_every": 100, "checkpoint.every": 500})
    tokens = steps * batch_tokens
    found = {
        "law": args.law.as_posix(),
        "unit": law.unit,
        "dataset": law.dataset,
        "tokenizer": store.manifest["tokenizer"]["sha256"][:12],
        "optimum": {"params": float(best_n), "tokens": float(best_d), "loss": float(law.surface.loss(best_n, best_d))},
        "params": params,
        "params_nonembed": params - counts.tables(model),
        "tokens": tokens,
        "flops": law.flops * params * tokens,
        "times_the_largest_run_of_the_fit": law.flops * params * tokens / law.ranges["C"][1],
        "loss": law.predict_loss(params, tokens)[0],
        "intervals": {str(level): law.predict_loss(params, tokens, level)[1:] for level in LEVELS},
        "command": f"python -m chinchilla_jax pretrain --config {args.out / 'prediction_config.json'} "
        "--run-dir runs/predicted",
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "prediction_config.json").write_text(json.dumps(dataclasses.asdict(run), indent=1) + "\n")
    (args.out / "prediction.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
