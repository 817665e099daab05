"""Where a run's weights came from; `training.origin` has it, since runs that start from one another hand it on."""

from chinchilla_jax.training.origin import ORIGIN as ORIGIN
from chinchilla_jax.training.origin import read as read_origin
from chinchilla_jax.training.origin import write as write_origin

__all__ = ["ORIGIN", "read_origin", "write_origin"]
