"""Everything of a run that is compiled: what is resolved and frozen before the first batch."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from chinchilla_jax.config import Config, expanded, require
from chinchilla_jax.finetuning import methods
from chinchilla_jax.model import packed
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.optim import optimizer, schedules
from chinchilla_jax.parallel import devices, sharding
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.planning.attacks import step_multiple
from chinchilla_jax.scaling import counts
from chinchilla_jax.tasks.kinds import table as kinds
from chinchilla_jax.training import state as states
from chinchilla_jax.training import step as steps
from chinchilla_jax.types import Batch


class Program:
    """A config on a mesh: the state's layout, and the compiled functions over it.

    `base` holds the model that tuning starts from; without one the program can be compiled and costed, and not run.
    `make(config, binding)` is the objective before any attack, `heads` the shapes of its own leaves; both are those of
    the config's task unless given. `documents()` is the most of a row where attention asks for it.
    Raises `UserError` where the mesh divides neither the parameters nor a microbatch.
    """

    def __init__(
        self,
        config: Config,
        mesh: Mesh | None = None,
        *,
        base: Any = None,
        make: objectives.Make = kinds.of_task,
        heads: dict[str, tuple[int, ...]] | None = None,
        documents: Callable[[], int] = lambda: packed.USUAL,
    ):
        self.mesh = meshes.build(config.mesh) if mesh is None else mesh
        self.config = meshes.resolve(config, self.mesh, lambda: packed.usable(packed.size_for(documents())))
        require(self.config.model.vocab_size > 0, "--model.vocab-size is 0 and no token store tells it; set it")
        heads = kinds.heads(self.config) if heads is None else heads
        self.base, self.recipe = base, methods.recipe(self.config.model, self.config.tune, heads)
        axes, frozen_axes = self.recipe.axes()

        def bind(frozen: Any, config: Config = self.config):
            return objectives.build(config, self.recipe.binding(frozen, axes), make)

        self.bind, self.objective = bind, bind(None)
        self.rate = schedules.schedule(self.config.optimizer, self.config.train.steps)
        train = self.config.train
        self.optimizer = optimizer.build(
            self.config.optimizer,
            self.rate,
            self.config.sparsity,
            steps=train.steps,
            seed=train.seed,
            around=self.recipe.around,
        )
        key = jax.eval_shape(jax.random.key, 0)  # a shape alone: the mesh may be of devices that are not here
        with jax.set_mesh(self.mesh):
            shapes, frozen = jax.eval_shape(self._start, key, self.recipe.abstract_base())
        self.abstract = states.abstract(shapes, axes, self.objective, self.optimizer, self.mesh)
        self.abstract_frozen = states.placed_on(frozen, sharding.shardings(self.mesh, frozen, frozen_axes))
        self.microbatch = self.config.train.batch_size // self.config.train.microbatches
        length = self.config.train.seq_len
        sharding.check(self.mesh, "a microbatch", (self.microbatch, length), ("batch", None))

    @property
    def state_shardings(self) -> Any:
        """Where every leaf of the state lives."""
        return shardings_of(self.abstract)

    def _start(self, key: jax.Array, base: Any) -> tuple[Any, Any]:
        """What trains and what stands still, from a base model."""
        return self.recipe.start(key, base), self.recipe.freeze(base)

    def initial(self) -> states.TrainState:
        """A fresh state, born sharded; the same numbers on every mesh, to the last bit or two."""
        make = jax.jit(
            lambda key, base: states.create(self.recipe.start(key, base), self.objective, self.optimizer),
            out_shardings=self.state_shardings,
        )
        base = self.base_params()  # may lie on another mesh, so before this one is set
        with jax.set_mesh(self.mesh):
            return make(jax.random.key(self.config.train.seed), base)

    def base_params(self) -> Any:
        """The parameters of the model that tuning starts from."""
        require(
            self.base is not None or not self.recipe.needs_base,
            f"--tune.method {self.config.tune.method} starts from a trained run; name it with --tune.base",
        )
        return self.base.params if self.recipe.needs_base else {}

    def base_facts(self) -> dict[str, Any]:
        """What a checkpoint says of the base that it is of no use without, if there is such a one."""
        needed = bool(jax.tree.leaves(self.abstract_frozen)) and self.base is not None
        return {"base": self.base.facts} if needed else {}

    @functools.cached_property
    def frozen(self) -> Any:
        """What stands still, on the mesh; it is read for the first step and kept."""
        if not jax.tree.leaves(self.abstract_frozen):
            return self.abstract_frozen
        frozen = self.recipe.freeze(self.base_params())  # on the base's mesh, which may be another
        return jax.device_put(frozen, shardings_of(self.abstract_frozen))

    def whole(self, trained: Any) -> Any:
        """A whole model's parameters from those that train; adapted matrices are nodes of `model.weights`."""
        return self.recipe.join(trained, self.frozen)

    def evaluated(self, state: states.TrainState) -> Any:
        """A whole model's parameters, averaged where the run keeps an average."""
        return self.whole(states.evaluated(state))

    @property
    def abstract_whole(self) -> Any:
        """Shapes, types and shardings of `whole`."""
        return self.recipe.join(self.abstract.params, self.abstract_frozen)

    def abstract_batch(self, rows: int, trained: bool = False) -> Batch:
        """Shapes and shardings of a batch of `rows` windows; `trained`: of one that a step takes."""
        where = sharding.batch_sharding(self.mesh)
        shape = (rows, self.config.train.seq_len)
        whole = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=where)
        real = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where)
        task = self.config.task
        return Batch(
            *(whole, whole, real, whole, whole),
            blocks=whole if task.source == "bidirectional" else None,
            reference=real if trained and task.reference == "stored" else None,
        )

    @property
    def beside(self) -> tuple[Any, ...]:
        """What the compiled step is given after state and batch: `frozen`, where anything stands still."""
        return (self.frozen,) if self._abstract_beside else ()

    @property
    def _abstract_beside(self) -> tuple[Any, ...]:
        return (self.abstract_frozen,) if jax.tree.leaves(self.abstract_frozen) else ()

    def step(self, rows: int) -> jax.stages.Compiled:
        """train_step(state, batch, *beside) -> state, metrics, compiled ahead of time for batches of `rows` windows."""
        train_step = steps.build(
            self.bind,
            self.optimizer,
            self.rate,
            parts=rows // self.microbatch,
            seed=self.config.train.seed,
        )
        beside = self._abstract_beside
        jitted = jax.jit(
            train_step if beside else functools.partial(train_step, frozen=self.abstract_frozen),
            in_shardings=(self.state_shardings, sharding.batch_sharding(self.mesh), *map(shardings_of, beside)),
            out_shardings=(self.state_shardings, sharding.replicated(self.mesh)),
            donate_argnums=0,
        )
        with jax.set_mesh(self.mesh):
            return jitted.lower(self.abstract, self.abstract_batch(rows, trained=True), *beside).compile()

    def evaluate(self, rows: int) -> Callable:
        """evaluate(whole parameters, batch) -> Sums, compiled for batches of `rows` windows of any documents."""
        every = dataclasses.replace(self.config, model=dataclasses.replace(self.config.model, documents=0))
        jitted = jax.jit(
            self.bind(None, every).evaluate,
            in_shardings=(shardings_of(self.abstract_whole), sharding.batch_sharding(self.mesh)),
            out_shardings=sharding.replicated(self.mesh),
        )
        with jax.set_mesh(self.mesh):
            return jitted.lower(self.abstract_whole, self.abstract_batch(rows)).compile()

    def _fed(self, batch: Batch) -> Batch:
        """A batch of numpy arrays as the model takes it; a text, in which no prompt is known, is read causally."""
        batch = self.recipe.fed(batch)
        causal = self.config.task.source == "bidirectional" and batch.blocks is None
        return dataclasses.replace(batch, blocks=np.zeros_like(batch.segments)) if causal else batch

    def place(self, make: Callable[[slice], Batch], rows: int) -> Batch:
        """A global batch of `rows` windows on the mesh; `make` is asked only for the rows that this process holds."""
        shape, where = (rows, self.config.train.seq_len), sharding.batch_sharding(self.mesh)
        spans = {index[0].indices(rows)[:2] for index in where.addressable_devices_indices_map(shape).values()}
        local = {span: self._fed(make(slice(*span))) for span in spans}

        def field(name: str):
            def rows_of(index):
                return getattr(local[index[0].indices(rows)[:2]], name)

            return jax.make_array_from_callback(shape, where, rows_of)

        names = vars(next(iter(local.values())))
        with jax.transfer_guard_host_to_device("allow"):  # the one transfer of a step, and a wanted one
            return Batch(**{name: field(name) for name in names})


def shardings_of(tree: Any) -> Any:
    """Where every leaf lives."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def cost(program: Program, compiled: jax.stages.Compiled) -> dict[str, Any]:
    """What a config costs, from the shapes and from the compiled step; bytes are per device.

    `expected_seconds` is an estimate before anything was run; None where the device's speed is unknown. FLOPs are the
    plain model's; `step_multiple` is what attacks make of a step, over the whole run.
    """
    model, train = program.config.model, program.config.train
    memory = compiled.memory_analysis()
    parameters = counts.parameters(model)
    multiple = step_multiple(program.config)
    flops = total_tokens(train) * counts.flops_per_token(model, train.seq_len)
    flops_per_s = devices.expected_flops_per_s(list(program.mesh.devices.flat))
    return {
        "parameters": parameters,
        "parameters_non_embedding": parameters - counts.tables(model),
        "flops_per_token": counts.flops_per_token(model, train.seq_len),
        "memory_bytes": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes,
        "memory_state_bytes": memory.argument_size_in_bytes,
        "memory_temporary_bytes": memory.temp_size_in_bytes,
        "tokens": total_tokens(train),
        "tokens_per_parameter": total_tokens(train) / parameters,
        "flops": flops,
        "step_multiple": multiple,
        "expected_seconds": multiple * flops / flops_per_s if flops_per_s else None,
    }


def check_memory(program: Program, needed: float) -> None:
    """Refuse a step that needs more bytes a device than there are."""
    there = devices.memory_bytes(program.mesh.devices.flat[0])
    require(
        there is None or needed <= there,
        f"a step needs {needed / 1e9:.1f} GB a device and there are {(there or 0) / 1e9:.1f}; raise "
        "--train.microbatches, set --model.remat full, or share the parameters over more devices with --mesh.fsdp",
    )


def total_tokens(train) -> int:
    """Tokens of the whole run, over every phase of the batch size."""
    return train.rows_before(train.steps) * train.seq_len


def use_compile_cache(folder: str) -> None:
    """Keep compiled programs in `folder`, readable by the user alone: what is in it is executed."""
    if not folder:
        return
    path = Path(expanded(folder))
    require(path.is_dir() or not path.exists(), f"--train.compile-cache {path} is no folder; name another")
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    loose = path.stat().st_mode & 0o022
    require(not loose, f"others may write to --train.compile-cache {path}, whose programs are executed: chmod 700 it")
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
