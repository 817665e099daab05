"""Nested dicts by name: there and back, and what is a leaf."""

from chinchilla_jax.finetuning.trees import flat, nest


def test_only_dicts_are_entered():
    axes, node = ("layers", None), [1, 2]
    tree = {"blocks": {"mlp": {"up": {"kernel": axes}}, "norm": node}, "count": None}
    found = flat(tree)
    assert found == {"blocks/mlp/up/kernel": axes, "blocks/norm": node, "count": None}
    assert nest(found) == tree and flat({}) == nest({}) == {}
    assert list(found) == list(flat(nest(dict(reversed(found.items())))))[::-1], "in the order of the names given"
