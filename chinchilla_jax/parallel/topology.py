"""Devices that this machine does not have, to compile for."""

import re
from collections import Counter

import jax
from jax.experimental import topologies

from chinchilla_jax.errors import UserError


def devices(name: str) -> list:
    """The devices of a TPU slice such as `v5e:4x4` or `v5p:8x8x4`; needs libtpu and no TPU.

    Raises `UserError` where libtpu is missing or does not know the name.
    """
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--topology {name}: {reason}; name a slice such as v5e:4x4, and install the tpu extra (libtpu)"
        ) from error


def collectives(compiled: jax.stages.Compiled) -> dict[str, int]:
    """How many instructions of each kind of communication a compiled program has (a loop's body counts once)."""
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    found = re.findall(rf" ({kinds})(?:-start)?\(", compiled.as_text())
    return dict(sorted(Counter(found).items()))
