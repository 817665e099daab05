"""Text in, token store out."""

import argparse
from pathlib import Path

from chinchilla_jax.commands import cli, hints
from chinchilla_jax.config import Config

SECTIONS = ("data",)
SMALL = 50_000_000  # bytes of text that the quickstart's settings learn from


def options(parser: argparse.ArgumentParser) -> None:
    """Flags of this command."""
    parser.add_argument("--force", action="store_true", help="make the store again even if there is one")
    parser.add_argument("--skip-broken", action="store_true", help="leave out files and lines that are no text")
    parser.add_argument("--report", metavar="DIR", help="write corpus.md with pictures and examples into this folder")


def run(config: Config, args: argparse.Namespace) -> dict:
    """Make the token store and say what is in it."""
    from chinchilla_jax.data import account, build

    if args.report:
        cli.writable(Path(args.report), "--report")
    manifest = build.prepare(config.data, force=args.force, skip_broken=args.skip_broken)
    for source in manifest["sources"]:
        print(f"{source['name']}: {source['documents']:,} documents, {source['bytes']:,} bytes; {source['licence']}")
    for line in account.table(manifest):
        print(line)
    for name, split in manifest["splits"].items():
        print(
            f"{name}: {split['documents']:,} documents, {split['bytes']:,} bytes, {split['tokens']:,} tokens, "
            f"{split['bytes_per_token']:.2f} bytes a token"
        )
    print(f"tokenizer: {manifest['tokenizer']['pieces']:,} pieces")
    pages = account.write(manifest, Path(args.report)) if args.report else []
    return {
        "wrote": [config.data.store, *map(str, pages)],
        "next": next_command(config, args, sum(split["bytes"] for split in manifest["splits"].values())),
        "store": config.data.store,
        **{key: manifest[key] for key in ("splits", "tokenizer", "sources", "duplicates", "empty")},
        "stages": manifest.get("stages", []),
    }


def next_command(config: Config, args: argparse.Namespace, size: int) -> str:
    """The command that trains on a store of `size` bytes of text, with settings that learn from it."""
    name = config.data.store.rstrip("/").rpartition("/")[2]
    chosen = args.config or ("quickstart" if size < SMALL else "")
    words = ["--config", chosen] if chosen else []
    run_dir = args.run_dir or f"runs/{name}"
    if config.data.tokenizer and Path(config.data.tokenizer).resolve() == Path(run_dir).resolve():
        run_dir += "-more"  # the run that the tokenizer came from has a model of its own
    words += ["--data.store", config.data.store, "--run-dir", run_dir]
    return hints.line("pretrain", *words)
