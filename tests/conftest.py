"""Every test sees 8 CPU devices, unless the environment asks for something else."""

import os
import shutil
import signal

import pytest

from tests import xla

# Read once by XLA when it starts, so they must stand before the first import of jax.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla.flags(8)}".strip()
# A shell's background job ignores Ctrl-C, and Python then raises nothing; the tests send it all the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """A worker of pytest-xdist that died ends the run, with the test that it was in.

    Left alone, xdist runs what the other workers have queued, or waits without end for tests that the dead one had.
    """
    if not error:
        return
    try:
        running = node.config.pluginmanager.get_plugin("dsession").sched.remove_node(node)
    except KeyError:  # it had not collected yet
        running = None
    where = f"in {running}" if running else "between two tests"
    pytest.exit(f"test worker {node.gateway.id} died {where}: {' '.join(str(error).split())[:200]}", returncode=1)


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory):
    """A token store for tiny runs."""
    from tests import runs

    return runs.prepare(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder for compiled programs, shared by all runs of the tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def compiled_once(cache):
    """Programs that this process has compiled before are taken from `cache`."""
    from tests import runs

    with runs.caching(cache):
        yield


@pytest.fixture(scope="session")
def whole_run(tiny_store, cache, tmp_path_factory):
    """A run directory of 20 steps on 8 devices; to be copied before anything is written to it."""
    from tests import runs

    with runs.caching(cache), runs.guarded():
        folder = runs.trained(tmp_path_factory.mktemp("runs") / "whole", tiny_store)
    found = sorted(folder.rglob("*"))
    yield folder
    assert sorted(folder.rglob("*")) == found, "a test wrote to the run that others share: let it take `copy`"


@pytest.fixture
def copy(whole_run, tmp_path):
    """A copy of the whole run that a test may change."""
    return shutil.copytree(whole_run, tmp_path / "copy")
