"""How the processes of a run find one another."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.parallel import distributed


@pytest.mark.parametrize("wrong", [{"coordinator": "a:1"}, {"processes": 2}, {"process": 0},
                                   {"coordinator": "a:1", "processes": 2, "process": 2},
                                   {"coordinator": "host", "processes": 2, "process": 0},
                                   {"coordinator": "host:0", "processes": 2, "process": 0},
                                   {"coordinator": "host:99999", "processes": 2, "process": 0}])  # fmt: skip
def test_half_a_cluster_is_refused(wrong):
    with pytest.raises(UserError, match="--coordinator"):
        distributed.Cluster(**wrong)


@pytest.mark.parametrize("seconds", [1, float("inf"), float("nan")])
def test_a_patience_that_no_clock_can_hold_is_refused(seconds):
    with pytest.raises(UserError, match="--peer-timeout"):
        distributed.Cluster(patience=seconds)
