"""Settings that are refused."""

import pytest

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config
from chinchilla_jax.errors import UserError


def refused(values: dict, hint: str) -> None:
    """Dotted settings are refused in one line that has the hint."""
    with pytest.raises(UserError) as caught:
        settings.replace(Config(), values)
    assert hint in str(caught.value) and "\n" not in str(caught.value), caught.value
