"""A run directory as a model ready for use."""

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from chinchilla_jax.config import AdversarialConfig, Config, CorruptionConfig, MeshConfig, SparsityConfig, require
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.disk import is_remote
from chinchilla_jax.errors import UserError
from chinchilla_jax.finetuning.methods import TABLES
from chinchilla_jax.model import stacks
from chinchilla_jax.model.weights import merged
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.optim import sparsefile
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.parallel import sharding
from chinchilla_jax.training import best, mirror
from chinchilla_jax.training.program import Program
from chinchilla_jax.training.restore import load_params, newest_meta, unpacked
from chinchilla_jax.training.resume import own_config
from chinchilla_jax.training.rundir import is_store

# What of a model is not its shape, and may be another in a run that starts from it.
HOW = ("dropout", "dtype", "kernels", "remat", "scan_unroll", "documents")


@dataclass(frozen=True)
class Loaded:
    """Parameters of the newest step that verifies, on a mesh, with the tokenizer they were trained with."""

    program: Program
    params: Any
    tokenizer: BaseTokenizer
    step: int
    notes: list[str]
    fingerprint: str = ""
    trained: Any = None  # what the run itself holds: an adapter, or the parameters again
    folder: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What a run that starts from this one says of it."""
        return {"run": self.folder, "step": self.step, "fingerprint": self.fingerprint}


def run_folder(run_dir: str | None) -> Path:
    """The folder of a run, or of a local copy of one on object storage; a one-line `UserError` where there is none."""
    require(bool(run_dir), "name the run with --run-dir")
    folder = mirror.fetched(run_dir) if is_remote(run_dir) else Path(run_dir)
    require(
        not is_store(folder) or (folder / "config.json").exists(),
        f"{folder} is a token store and no run; train on it with pretrain --data.store {folder} --run-dir RUN",
    )
    require((folder / "config.json").exists(), f"{folder} holds no run; train one with pretrain --run-dir {folder}")
    return folder


def load(
    config: Config,
    run_dir: str | None,
    *,
    whole_mesh: bool = True,
    mesh: Mesh | None = None,
    step: int | None = None,
    make: objectives.Make = objectives.language,
    base: Loaded | None = None,
) -> Loaded:
    """Load `run_dir`: on all devices for throughput, on as few as fsdp and tensor ask for, or on `mesh`.

    Of a run that names a best step that one is taken, of another the newest, unless `step` says which. `make` is the
    objective of the program: that of a language model unless told otherwise, whatever the run was tuned for.

    Model, optimizer and method of tuning are the run's own, whatever `config` says of them; a run that holds an adapter
    alone is joined with its base, which is `base` where that is loaded already. The averaged parameters are taken where
    the run keeps them. Raises `UserError` for a folder that holds no run, and for a base that is not the adapter's.
    """
    folder = run_folder(run_dir)
    own = own_config(folder)
    config = _as_trained(config, own)
    step = best.read(folder).get("step") if step is None else step
    notes, moved = [], config.mesh == own.mesh and not meshes.fits(config.mesh)
    if moved:
        notes = [f"the run's mesh does not fit the {len(jax.devices())} devices here; each takes a replica"]
        config = dataclasses.replace(config, mesh=MeshConfig())
    mesh = base.program.mesh if base else mesh or _mesh(config, whole_mesh)
    program = _program(config, whole_mesh, mesh, base_of(config, folder, mesh, base), make)
    if (packed := folder / sparsefile.FILE).exists():
        found = unpacked(packed, program.abstract.params)
    else:
        found = load_params(
            mirror.checkpoints(folder),
            program.abstract.params,
            average=bool(config.optimizer.ema_decay),
            level=config.checkpoint.verify,
            step=step,
        )
    tokenizer = open_tokenizer(folder)
    stored = found.meta.get("tokenizer")
    require(
        stored in (None, tokenizer.sha256),
        f"{tokenizer.path} is not the tokenizer that the checkpoint was trained with; copy the right one",
    )
    check_base(found.meta, program.base)
    digest = hashlib.sha256(f"{found.fingerprint} {found.meta.get('base')}".encode()).hexdigest()
    return Loaded(
        program,
        program.whole(found.state),
        tokenizer,
        found.step,
        notes + found.notes,
        digest,
        found.state,
        mirror.name(folder),
    )


def _as_trained(config: Config, own: Config) -> Config:
    """`config` with what a run's own says of its model, without what attacks or masks keep: that is not loaded."""
    train = dataclasses.replace(config.train, steps=own.train.steps, batch_ramp=())  # to which its optimizer belongs
    return dataclasses.replace(
        config,
        model=own.model,
        optimizer=own.optimizer,
        objective=own.objective,
        tune=own.tune,
        task=own.task,
        train=train,
        adversarial=AdversarialConfig(),
        corruption=CorruptionConfig(),
        sparsity=SparsityConfig(),
    )


def adapter(config: Config, run_dir: str, base: Loaded) -> Loaded:
    """A tuned run over a base that is loaded already, if it has its shape and tokenizer: then they share programs."""
    whole = own_config(run_folder(run_dir)).tune.whole
    require(not whole, f"--adapter {run_dir}: that run is a whole model and no adapter; give it as --run-dir")
    found = load(config, run_dir, base=base)
    same = found.program.config.model == base.program.config.model and found.tokenizer.sha256 == base.tokenizer.sha256
    require(same, f"--adapter {run_dir}: that model has another shape or tokenizer than its base; give it as --run-dir")
    return found


def _mesh(config: Config, whole: bool) -> Mesh:
    """The config's mesh, or one of as few devices as its fsdp and tensor ask for: all of them where one is -1."""
    few = MeshConfig(1, config.mesh.fsdp, config.mesh.tensor)
    count = few.fsdp * few.tensor
    return meshes.build(config.mesh) if whole else meshes.build(few, jax.devices()[: count if count > 0 else None])


def _program(config: Config, whole_mesh: bool, mesh: Mesh, base: "Base | None", make: objectives.Make) -> Program:
    """A program whose batch suits its mesh, whatever mesh the run was trained on."""
    shards = sharding.shards("batch", mesh)
    rows = -(-config.train.batch_size // config.train.microbatches // shards) * shards if whole_mesh else shards
    train = dataclasses.replace(config.train, batch_size=rows, microbatches=1, batch_ramp=())
    return Program(dataclasses.replace(config, train=train), mesh, base=base, make=make)


@dataclass
class Base:
    """The trained run that tuning starts from, looked for and read when it is first asked for."""

    config: Config
    run_dir: Path  # that is tuned
    mesh: Mesh | None
    step: int | None
    held: Loaded | None = None

    @functools.cached_property
    def folder(self) -> Path:
        """Where it is."""
        return find_base(self.config.tune.base, self.run_dir)

    @functools.cached_property
    def loaded(self) -> Loaded:
        """The run itself."""
        return self.held or load(
            self.config, str(self.folder), mesh=self.mesh or meshes.build(self.config.mesh), step=self.step
        )

    @property
    def params(self) -> Any:
        """Its parameters, adapters merged, with the first of its layers and as many pieces as the tuned model has.

        New pieces are the mean of the others.
        """
        found = {name: part for name, part in merged(self.loaded.params).items() if name != "heads"}
        found = stacks.lowest(stacks.whole(found), self.config.model.layers)
        return grown(found, self.config.model.vocab_size)

    def release(self) -> None:
        """Forget its parameters; whoever asks again reads them again."""
        self.__dict__.pop("loaded", None)

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint of a tuned run says of its base."""
        return self.loaded.facts


def grown(params: Any, pieces: int) -> Any:
    """`params` whose tables have so many rows, the new ones being the mean of the others."""

    def one(table_VD):
        more = pieces - table_VD.shape[0]
        require(more >= 0, f"--model.vocab-size {pieces} is less than the {table_VD.shape[0]} rows of the base's table")
        return jnp.concatenate([table_VD, jnp.broadcast_to(table_VD.mean(0), (more, table_VD.shape[1]))])

    if pieces == params["embed"]["table"].shape[0]:
        return params
    return params | {name: {"table": one(params[name]["table"])} for name in TABLES if name in params}


def base_of(config: Config, run_dir: Path, mesh: Mesh | None = None, held: Loaded | None = None) -> Base | None:
    """The base that `config.tune` names, at the step that the checkpoints in `run_dir` were trained on, if any are.

    `held` is one that is loaded already.
    """
    if not config.tune.base:
        return None
    step = newest_meta(mirror.checkpoints(run_dir)).get("base", {}).get("step")
    return Base(config, run_dir, mesh, step, held)


def find_base(named: str, run_dir: Path) -> Path:
    """The folder of a base: as it was named, or beside the run where both were moved together."""
    if is_remote(named):
        return mirror.fetched(named)
    places = [Path(named), run_dir.absolute().parent / Path(named).name]
    for place in places:
        if (place / "config.json").exists():
            return place
    if found := mirror.beside(run_dir, Path(named).name):
        return found
    require(
        (run_dir / "config.json").exists(),
        f"{named} holds no run to start from; name the folder of one, as `pretrain` and `import` make them",
    )
    raise UserError(
        f"the base {named} of {run_dir} is not there; put that run back, or beside {run_dir} (a merged run needs none)"
    )


def check_base(meta: dict[str, Any], base: Base | None) -> None:
    """Refuse an adapter on another base than the one that it was trained on."""
    wanted = meta.get("base")
    if wanted is None:
        return
    require(base is not None, f"the checkpoint holds an adapter of {wanted['run']} alone; name it with --tune.base")
    require(
        base.facts["fingerprint"] == wanted["fingerprint"],
        f"{base.facts['run']} at step {base.facts['step']} is not the base that the adapter was trained on "
        f"({wanted['run']} at step {wanted['step']}): their parameters differ; put that run back",
    )


def tuned(config: Config, run_dir: Path) -> Config:
    """`config` with the model of the base that it names, if it does."""
    if not config.tune.base:
        require(
            config.tune.method == "off",
            f"--tune.method {config.tune.method} starts from a trained run; name it with --tune.base",
        )
        return config
    require(config.tune.method != "off", "--tune.base names a run to start from; say how with --tune.method, as full")
    begun = (run_dir / "config.json").exists()  # a run that trains everything needs its base for the start alone
    model = own_config(run_dir if begun else find_base(config.tune.base, run_dir)).model
    how = {name: getattr(config.model, name) for name in HOW}
    layers = config.tune.layers or model.layers
    require(layers <= model.layers, f"--tune.layers {layers}: {config.tune.base} has {model.layers} layers")
    model = dataclasses.replace(model, **how, layers=layers, tied=model.tied and not config.tune.untie)
    return dataclasses.replace(config, model=model)
