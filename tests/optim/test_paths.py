"""Names of parameters, and what in an optimizer's state follows them."""

import jax.numpy as jnp
import numpy as np
import optax

from chinchilla_jax.optim.paths import map_followers, named

PARAMS = {"blocks": {"up": {"kernel": np.ones((2, 3))}, "bias": np.zeros(3)}, "embed": {"table": np.ones((4, 3))}}


def test_names_are_paths_through_any_node():
    state = optax.chain(optax.scale_by_adam(), optax.trace(0.9)).init(PARAMS)
    found = named(state)
    assert list(named(PARAMS)) == ["blocks/bias", "blocks/up/kernel", "embed/table"]
    assert {"0/count", "0/mu/blocks/up/kernel", "0/nu/embed/table", "1/trace/blocks/bias"} <= found.keys()


def test_moments_follow_by_path_and_shape_whatever_they_are_wrapped_in():
    """Of all parameters but one; counters, factored moments and what has the name alone do not."""
    tx = optax.MultiSteps(optax.masked(optax.adam(0.1), {"blocks": True, "embed": False}), 2).gradient_transformation()
    followed = {name: leaf for name, leaf in named(PARAMS).items() if name != "blocks/bias"}
    seen = []
    state = map_followers(lambda leaf, p: seen.append(p.shape) or leaf + 7, tx.init(PARAMS), followed)
    marked = {name for name, leaf in named(state).items() if np.all(np.asarray(leaf) == 7)}
    moments = {f"inner_opt_state/inner_state/0/{kind}/blocks/up/kernel" for kind in ("mu", "nu")}
    assert marked == moments | {"acc_grads/blocks/up/kernel", "acc_grads/embed/table"}
    assert sorted(seen) == [(2, 3)] * 3 + [(4, 3)]
    assert not any(np.any(leaf) for name, leaf in named(state).items() if name not in marked), "untouched"
    factored = {"v_row": {"blocks": {"up": {"kernel": jnp.zeros(2)}}}, "up": {"kernel": jnp.zeros((2, 3))}}
    found = map_followers(lambda leaf, p: "follows", factored, followed, otherwise=lambda leaf: "other")
    assert set(named(found).values()) == {"other"}, "another shape, or half of the path"
    assert map_followers(lambda leaf, p: p.sum(), {"x": PARAMS}, followed, lambda leaf: 0)["x"]["embed"]["table"] == 12
