"""Libraries that only some metrics need."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.metrics import extras


def test_a_missing_library_is_one_line():
    with pytest.raises(UserError, match=r"pip install 'chinchilla_jax\[tasks\]'"):
        extras.library("no_such_scorer.inner")
