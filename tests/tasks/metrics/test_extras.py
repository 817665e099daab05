"""Libraries that only some metrics need."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.metrics import extras


def test_a_missing_library_is_one_line():
    with pytest.raises(UserError, match="make env EXTRA=tasks"):
        extras.library("no_such_scorer.inner")
