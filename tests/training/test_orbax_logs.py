"""What Orbax and asyncio say of a failure that is told already is dropped, and nothing else."""

import logging

import pytest

from chinchilla_jax.training import orbax_logs


@pytest.mark.parametrize("kind", ["Task", "Future", "_GatheringFuture"])
def test_what_fails_after_the_first_failure_is_not_logged(kind, caplog):
    orbax_logs.quiet_orbax()
    for where in ("40.partial/default.orbax-checkpoint-tmp", "elsewhere"):
        logging.getLogger("asyncio").error(f"{kind} exception was never retrieved\nexception=OSError('{where}')")
    assert [record.getMessage().split("'")[1] for record in caplog.records] == ["elsewhere"]
