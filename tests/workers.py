"""How many workers of pytest-xdist there are, and what becomes of the tests when one dies."""

import os

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """A worker more than there are cores: tests that wait for processes left a fifth of them idle."""
    return os.cpu_count() + 1


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """A worker of pytest-xdist that died ends the run, with the test that it was in.

    Left alone, xdist runs what the other workers have queued, or waits without end for tests that the dead one had.
    The others are killed, since execnet asks them for 10 s to end and then may leave before it kills them.
    """
    if not error:
        return
    scheduler = node.config.pluginmanager.get_plugin("dsession").sched
    try:
        running = scheduler.remove_node(node)
    except KeyError:  # it had not collected yet
        running = None
    for other in scheduler.nodes:
        other.gateway._io.popen.kill()
    where = f"in {running}" if running else "between two tests"
    pytest.exit(f"test worker {node.gateway.id} died {where}: {' '.join(str(error).split())[:200]}", returncode=1)
