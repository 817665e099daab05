"""How the processes of a run find one another."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.parallel import distributed


@pytest.mark.parametrize("wrong", [{"coordinator": "a:1"}, {"processes": 2}, {"process": 0},
                                   {"coordinator": "a:1", "processes": 2, "process": 2},
                                   {"coordinator": "host", "processes": 2, "process": 0}])  # fmt: skip
def test_half_a_cluster_is_refused(wrong):
    with pytest.raises(UserError, match="--coordinator"):
        distributed.Cluster(**wrong)
