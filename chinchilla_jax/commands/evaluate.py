"""Evaluate a run on the whole validation set of its token store."""

import json
from pathlib import Path

from chinchilla_jax.commands import cli
from chinchilla_jax.config import require

SECTIONS = ("data", "mesh", "train", "checkpoint")


def options(parser) -> None:
    """No flags of its own."""


def run(config, args) -> dict:
    """Measure the newest checkpoint on the whole validation set; evaluation.json keeps the figures."""
    from chinchilla_jax.data.store import TokenStore
    from chinchilla_jax.evaluation.compression import bits_per_byte
    from chinchilla_jax.evaluation.likelihood import Likelihood
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training.load import load, run_folder
    from chinchilla_jax.training.metrics import finite

    host.keep_freed_memory()
    run_folder(args.run_dir)
    store = TokenStore.open(config.data.store)
    loaded = load(config, args.run_dir, whole_mesh=True)
    require(
        store.tokenizer.sha256 == loaded.tokenizer.sha256,
        f"{config.data.store} was made with another tokenizer than the run's; prepare it again with "
        f"--data.tokenizer {args.run_dir}/tokenizer.model",
    )
    figures = Likelihood(loaded.program, store.valid)(loaded.params)
    report = {
        "step": loaded.step,
        **figures,
        "bytes": store.valid.bytes,
        "documents": len(store.valid.starts),
        **bits_per_byte(store.valid_text),
    }
    for note in loaded.notes:
        print(f"warning: {note}")
    for name, value in report.items():
        print(f"{name:<22} {value:,.4f}" if isinstance(value, float) else f"{name:<22} {value:,}")
    path = Path(args.run_dir, "evaluation.json")
    path.write_text(json.dumps(finite(report), indent=1) + "\n")
    following = cli.line("generate", "--run-dir", args.run_dir, "--prompt", "Once upon a time")
    return {**report, "wrote": [str(path)], "next": following}
