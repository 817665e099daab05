"""The state of a run: born split, what follows a parameter like it; and which parameters are evaluated."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax

from chinchilla_jax.config import Config, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from chinchilla_jax.optim import optimizer
from chinchilla_jax.optim.paths import named
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.training import state as states
from chinchilla_jax.training.program import Program

MODEL = ModelConfig(layers=1, d_model=16, heads=8, kv_heads=4, head_dim=4, d_ff=24, vocab_size=64)
TRAIN = TrainConfig(batch_size=8, seq_len=16)


def test_parameters_and_moments_are_born_split():
    program = Program(Config(model=MODEL, mesh=MeshConfig(2, 2, 2), train=TRAIN))
    kernel = program.abstract.params["blocks"]["mlp"]["up"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (1, 8, 12)
    split = [
        x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(program.abstract.opt_state) if x.shape == kernel.shape
    ]
    assert split and set(split) == {(1, 8, 12)}


def test_what_follows_a_parameter_is_laid_out_as_it_is():
    """Moments and average by its axes; counts, and what a factored optimizer keeps in another shape, whole."""
    mesh = meshes.build(MeshConfig(1, 4, 2))
    params = {"blocks": {"w": jax.ShapeDtypeStruct((8, 16), jnp.float32)}}
    objective = SimpleNamespace(init=lambda params: {"count": jnp.zeros(8)}, carry_axes={"count": ("embed",)})
    chain = optax.chain(optax.scale_by_adam(), optax.scale_by_factored_rms(min_dim_size_to_factor=4))
    found = named(states.abstract(params, {"blocks": {"w": ("embed", "mlp")}}, objective, chain, mesh))
    split = {name: leaf.sharding.shard_shape(leaf.shape) for name, leaf in found.items()}
    assert {name for name, shape in split.items() if shape == (2, 8)} == {
        "params/blocks/w", "opt_state/0/mu/blocks/w", "opt_state/0/nu/blocks/w"
    }  # fmt: skip
    assert split["carry/count"] == (2,) and split["step"] == split["opt_state/0/count"] == ()
    rows = [name for name in split if "v_row" in name or "v_col" in name]
    assert len(rows) == 2 and all(split[name] == found[name].shape for name in rows)


def test_the_average_is_evaluated_where_there_is_one():
    params, zero = {"w": jnp.ones(2)}, jnp.int32(0)
    for decay, expected in ((0.0, 1.0), (0.5, 2.0)):
        chain = optimizer.build(OptimizerConfig(ema_decay=decay), lambda step: 0.1)
        state = chain.init({"blocks": {"up": {"kernel": jnp.full((2, 2), 2.0)}}})
        found = states.evaluated(states.TrainState(zero, zero, zero, params, state, ()))
        assert found is params if not decay else (found["blocks"]["up"]["kernel"] == expected).all()
