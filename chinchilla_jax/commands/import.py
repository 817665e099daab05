"""Make a run directory from weights in another format: a Hugging Face folder, a GGUF file, or an adapter of peft's."""

from pathlib import Path

from chinchilla_jax.commands import cli, hints
from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError

SECTIONS = ("mesh",)


def options(parser) -> None:
    """Flags of this command."""
    parser.add_argument("path", metavar="PATH", help="a Hugging Face model folder (safetensors), a .gguf file, or an "
        "adapter folder of peft's")  # fmt: skip
    parser.add_argument("--base", metavar="RUN", help="run directory of the model that an adapter belongs to")
    parser.add_argument("--ignore", nargs="+", default=[], metavar="NAME", help="settings of its config.json that "
        "change nothing of what the model computes")  # fmt: skip


def is_run(folder: Path) -> bool:
    """Whether a folder has the config.json of a run, and not Hugging Face's."""
    from chinchilla_jax.training.resume import own_config

    try:
        return bool(own_config(folder))
    except UserError:
        return False


def run(config, args) -> dict:
    """Check everything, then write `--run-dir`, a new folder."""
    run_dir, path = cli.fresh(args.run_dir, "--run-dir"), Path(args.path)
    require(
        not is_run(path),
        f"{path} is a run directory, which every command takes as it is; give it as --run-dir or --from",
    )

    from chinchilla_jax.interop import imported
    from chinchilla_jax.scaling import counts
    from chinchilla_jax.training.metrics import Terminal

    terminal = Terminal()
    if (path / "adapter_config.json").exists():
        require(bool(args.base), f"{path} holds an adapter; name the run of its base model with --base")
        origin = imported.write_adapter(path, run_dir, args.base, config)
        terminal.say(f"a {origin['architecture']} adapter of {args.base}")
        return {"origin": origin, "wrote": [str(run_dir)], "next": following(run_dir)}
    require(not args.base, f"--base belongs to an adapter, and {path} holds none")
    source = imported.open_source(path, tuple(args.ignore))
    origin = imported.write(source, path, run_dir, config, terminal.say)
    model = source.model
    report = {
        "architecture": origin["architecture"],
        "license": origin.get("license", ""),
        "parameters": counts.parameters(model),
        "context": model.context,
    }
    for name, value in report.items():
        terminal.say(f"{name:<14} {value:,}" if isinstance(value, int) else f"{name:<14} {value or 'not told'}")
    if "context" in origin:
        terminal.say(f"warning: the context is {origin['context']}")
    return {**report, "origin": origin, "wrote": [str(run_dir)], "next": following(run_dir)}


def following(run_dir: Path) -> str:
    """The command that shows what was imported at work."""
    from chinchilla_jax.training.resume import own_config

    return hints.use(own_config(run_dir), str(run_dir), "The capital of France is")
