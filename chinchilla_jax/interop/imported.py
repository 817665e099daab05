"""A `Source` becomes a run directory: checkpoint 0 of its parameters, its tokenizer, and where it came from."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import jax

from chinchilla_jax import __version__
from chinchilla_jax.config import Config, MeshConfig, TuneConfig, require
from chinchilla_jax.data.marks import TEMPLATE
from chinchilla_jax.data.tokenizers import NAMES, open_tokenizer, tokenizer_file
from chinchilla_jax.data.workspace import publish, workspace
from chinchilla_jax.interop import files
from chinchilla_jax.interop.gguf_read import File
from chinchilla_jax.interop.huggingface import Folder
from chinchilla_jax.interop.peft_read import Adapter
from chinchilla_jax.interop.source import Source, leaves
from chinchilla_jax.optim.paths import named
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.tasks import kept
from chinchilla_jax.training import origin as origins
from chinchilla_jax.training import params_only
from chinchilla_jax.training.load import base_of, run_folder, tuned
from chinchilla_jax.training.program import Program
from chinchilla_jax.training.resume import own_config

WINDOW = 1024  # tokens of the windows that evaluation and training start with, where the model can read as many


def open_source(path: Path, ignored: tuple[str, ...] = ()) -> Source:
    """What is at `path`, by what it is: a folder of Hugging Face's, or a GGUF file."""
    require(path.exists() or path.is_symlink(), f"{path}: no such file or folder")
    return Folder(path, ignored) if path.is_dir() else File(files.plain(path), ignored)


def settings(source: Source, config: Config) -> Config:
    """The settings of the run: the model's own, and windows that this machine can be asked to read."""
    train = dataclasses.replace(config.train, seq_len=min(source.model.context or WINDOW, WINDOW))
    tune = TuneConfig(method="full") if source.task.kind != "auto" else config.tune  # a head is part of what is tuned
    return dataclasses.replace(config, model=source.model, train=train, tune=tune, task=source.task)


def write(source: Source, path: Path, run_dir: Path, config: Config, say: Callable[[str], None]) -> dict:
    """Write the run directory, whole or not at all; what is in origin.json.

    As few devices as --mesh.fsdp and --mesh.tensor ask for hold the parameters, one leaf at a time.
    """
    config = settings(source, config)
    few = MeshConfig(1, abs(config.mesh.fsdp), abs(config.mesh.tensor))
    program = Program(
        dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=few.fsdp)),
        meshes.build(few, jax.devices()[: few.fsdp * few.tensor]),
    )
    found = leaves(source, named(program.abstract.params))
    say(f"reading {sum(leaf.size for leaf in found.values()):,} parameters from {path}")
    folder = path if path.is_dir() else path.parent
    origin = {"source": str(path), **source.facts, "files": files.hashes(folder, source.files), "version": __version__}
    with workspace(run_dir, "--run-dir") as place:
        made, beside = place / "run", place / "tokenizer"
        made.mkdir()
        beside.mkdir()
        tokenizer = source.write_tokenizer(beside)
        fits(open_tokenizer(tokenizer).size, source.model.vocab_size, path)
        with jax.set_mesh(program.mesh):
            params_only.write(made, config, tokenizer, found, dtype=program.config.model.dtype)
        if (beside / TEMPLATE).exists():
            shutil.copyfile(beside / TEMPLATE, made / TEMPLATE)
        if source.task.kind != "auto" and (folder / kept.FILE).is_file():
            shutil.copyfile(folder / kept.FILE, made / kept.FILE)
        origins.write(made, origin)
        publish(made, run_dir)
    return origin


def write_adapter(path: Path, run_dir: Path, named_base: str, config: Config) -> dict:
    """An adapter run on the run that is `named_base`, from an adapter folder of peft's; what is in origin.json."""
    adapter, base = Adapter(path, named_base), run_folder(named_base)
    own = own_config(base)
    own = dataclasses.replace(own, optimizer=dataclasses.replace(own.optimizer, ema_decay=0.0))
    own = dataclasses.replace(own, tune=adapter.tune, task=adapter.task, mesh=config.mesh)
    config = tuned(own, run_dir)
    model = dataclasses.replace(config.model, vocab_size=adapter.pieces(config.model))
    few = MeshConfig(1, abs(config.mesh.fsdp), abs(config.mesh.tensor))
    mesh = meshes.build(few, jax.devices()[: few.fsdp * few.tensor])
    rows = dataclasses.replace(config.train, batch_size=few.fsdp, microbatches=1, batch_ramp=())
    config = dataclasses.replace(config, model=model)
    program = Program(dataclasses.replace(config, train=rows), mesh, base=base_of(config, run_dir, mesh))
    if program.recipe.rows:
        adapter.part_rows(program.recipe, program.base.params)
    found = adapter.leaves(program.recipe, named(program.abstract.params))
    sums = files.hashes(path, adapter.files)
    origin = {"source": str(path), "format": "peft", "architecture": adapter.told["peft_type"], "files": sums}
    tokenizer = own_tokenizer(path, base, bool(adapter.tune.rows))
    fits(open_tokenizer(tokenizer).size, model.vocab_size, path)
    with workspace(run_dir, "--run-dir") as place, jax.set_mesh(mesh):
        made, dtype = place / "run", program.config.model.dtype
        made.mkdir()
        params_only.write(made, config, tokenizer, found, dtype=dtype, base=program.base_facts())
        for name in (TEMPLATE, kept.FILE):
            if (path / name).is_file():
                shutil.copyfile(path / name, made / name)
        before = origins.read(base)
        origins.write(made, {**origin, "version": __version__, **({"from": before} if before else {})})
        publish(made, run_dir)
    return origin


def own_tokenizer(path: Path, base: Path, grown: bool) -> Path:
    """The base's tokenizer, or that of an adapter with pieces of its own, of the base's kind where it has both."""
    theirs = tokenizer_file(base)
    if not grown or not any((path / name).is_file() for name in NAMES):
        return theirs
    return path / theirs.name if (path / theirs.name).is_file() else tokenizer_file(path)


def fits(pieces: int, rows: int, path: Path) -> None:
    """Refuse a tokenizer with ids beyond the embedding table; a table may have rows to spare."""
    require(pieces <= rows, f"{path}: the tokenizer has {pieces} ids and the embedding table {rows} rows")
