"""A run directory as a model ready for use."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from chinchilla_jax.config import AdversarialConfig, Config, MeshConfig, SparsityConfig, require
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.training.program import Program
from chinchilla_jax.training.restore import load_params
from chinchilla_jax.training.resume import own_config


@dataclass(frozen=True)
class Loaded:
    """Parameters of the newest step that verifies, on a mesh, with the tokenizer they were trained with."""

    program: Program
    params: Any
    tokenizer: BaseTokenizer
    step: int
    notes: list[str]


def run_folder(run_dir: str | None) -> Path:
    """The folder of a run, or a one-line `UserError` where there is none."""
    require(bool(run_dir), "name the run with --run-dir")
    folder = Path(run_dir)
    require((folder / "config.json").exists(), f"{folder} holds no run; train one with pretrain --run-dir {folder}")
    return folder


def load(config: Config, run_dir: str | None, *, whole_mesh: bool) -> Loaded:
    """Load `run_dir`: on all devices for throughput, or on as few as fsdp and tensor ask for.

    Model and optimizer are the run's own, whatever `config` says of them. The averaged parameters are taken where the
    run keeps them. Raises `UserError` for a folder that holds no run.
    """
    folder = run_folder(run_dir)
    own = own_config(folder)
    config = dataclasses.replace(config, model=own.model, optimizer=own.optimizer, objective=own.objective)
    # What an attack or masks keep is no part of what is loaded.
    config = dataclasses.replace(config, adversarial=AdversarialConfig(), sparsity=SparsityConfig())
    notes, moved = [], config.mesh == own.mesh and not meshes.fits(config.mesh, len(jax.devices()))
    if moved:
        notes = [f"the run's mesh does not fit the {len(jax.devices())} devices here; each takes a replica"]
        config = dataclasses.replace(config, mesh=MeshConfig())
    program = _program(config, whole_mesh)
    found = load_params(
        folder / "checkpoints",
        program.abstract.params,
        average=bool(config.optimizer.ema_decay),
        level=config.checkpoint.verify,
    )
    tokenizer = open_tokenizer(folder)
    stored = found.meta.get("tokenizer")
    require(
        stored in (None, tokenizer.sha256),
        f"{tokenizer.path} is not the tokenizer that the checkpoint was trained with; copy the right one",
    )
    return Loaded(program, found.state, tokenizer, found.step, notes + found.notes)


def _program(config: Config, whole_mesh: bool) -> Program:
    """A program whose batch suits its mesh, whatever mesh the run was trained on."""
    few = MeshConfig(1, abs(config.mesh.fsdp), abs(config.mesh.tensor))
    mesh = meshes.build(config.mesh) if whole_mesh else meshes.build(few, jax.devices()[: few.fsdp * few.tensor])
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = -(-config.train.batch_size // config.train.microbatches // shards) * shards if whole_mesh else shards
    train = dataclasses.replace(config.train, batch_size=rows, microbatches=1, batch_ramp=())
    return Program(dataclasses.replace(config, train=train), mesh)
