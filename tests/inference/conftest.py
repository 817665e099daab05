"""Programs of models with reference kernels compile fast; those of a CPU's are compiled as they are served."""

import pytest

from chinchilla_jax.inference import engine
from tests import tiny


@pytest.fixture(autouse=True, scope="session")
def quick():
    """Where bits do not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engine.OPTIONS, "reference", tiny.QUICK)
        yield
