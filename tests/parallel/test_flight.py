"""No more programs wait for the devices than were allowed."""

import pytest

from chinchilla_jax.parallel.flight import paced


class Result:
    """A result that counts as unfinished until somebody has waited for it."""

    unfinished = 0
    most = 0

    def __init__(self):
        Result.unfinished += 1
        Result.most = max(Result.most, Result.unfinished)

    def block_until_ready(self):
        Result.unfinished -= 1


@pytest.mark.parametrize("depth", [0, 1, 8])
def test_at_most_depth_are_unfinished(depth):
    Result.unfinished = Result.most = 0
    found = list(paced((Result() for _ in range(50)), depth))
    assert len(found) == 50 and Result.unfinished == depth and Result.most == depth + 1
