"""Devices that this machine does not have, to compile for."""

from jax.experimental import topologies

from chinchilla_jax.errors import UserError

# A TPU v4 has two cores that are used as one device; libtpu has to be told so.
OPTIONS = {"v4": {"chip_config_name": "megacore"}}


def devices(name: str) -> list:
    """The devices of a TPU slice such as `v5e:4x4` or `v5p:8x8x4`; needs libtpu and no TPU.

    Raises `UserError` where libtpu is missing or does not know the name.
    """
    options = OPTIONS.get(name.split(":")[0], {})
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--topology {name}: {reason}; name a slice such as v5e:4x4, and install the tpu extra (libtpu)"
        ) from error
