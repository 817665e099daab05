"""Nested dicts by name. Only dicts are entered: arrays, nodes, shapes and tuples of logical axes are leaves alike."""

from typing import Any


def flat(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Name such as `blocks/mlp/up/kernel` -> leaf."""
    found = {}
    for name, part in tree.items():
        here = f"{path}/{name}" if path else name
        found |= flat(part, here) if isinstance(part, dict) else {here: part}
    return found


def nest(leaves: dict[str, Any]) -> dict[str, Any]:
    """The nested dict of leaves by name."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        room = tree
        for parent in parents:
            room = room.setdefault(parent, {})
        room[last] = leaf
    return tree
