"""Laws of the loss in parameters and tokens: the surface, the published ones by name, and what bends them."""

from chinchilla_jax.scaling.corrections import (
    Equivalent,
    Repeated,
    Served,
    average_params,
    frantar,
    overhead,
    repeated,
    served,
    sparse_equivalent,
)
from chinchilla_jax.scaling.published import ALLOCATIONS, DEFAULT, PUBLISHED, Allocation, Published, mixture, published
from chinchilla_jax.scaling.surface import Law, Surface

__all__ = [
    "ALLOCATIONS", "DEFAULT", "PUBLISHED", "Allocation", "Equivalent", "Law", "Published", "Repeated", "Served",
    "Surface", "average_params", "frantar", "mixture", "overhead", "published", "repeated", "served",
    "sparse_equivalent",
]  # fmt: skip
