"""Every test sees 8 CPU devices, unless the environment asks for something else."""

import gc
import os
import shutil
import signal
import tempfile

import filelock
import pytest

from tests import xla

pytest_plugins = ["tests.slots", "tests.workers"]

# Read once by XLA when it starts, so they must stand before the first import of jax.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla.flags(8)}".strip()
# A shell's background job ignores Ctrl-C, and Python then raises nothing; the tests send it all the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiling is most of the time of the tests: workers of pytest-xdist and the processes that tests start take programs
# that another has compiled.
if "PYTEST_XDIST_WORKER" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_collection_finish():
    """The garbage collector leaves out what was made by imports and looks at the rest rarely; it took a tenth of the
    time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """The folder of what all workers of pytest-xdist have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def made_once(folder, make):
    """`make(folder)` by the first worker that asks; the others wait for it."""
    with filelock.FileLock(f"{folder}.lock"):
        done = folder.with_suffix(".done")
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_store(common):
    """A token store for tiny runs."""
    from tests import runs

    return made_once(common / "tiny", runs.prepare) / "store"


@pytest.fixture(scope="session")
def whole_run(tiny_store, common):
    """A run directory of 20 steps on 8 devices; to be copied before anything is written to it."""
    from tests import runs

    with runs.guarded():
        folder = made_once(common / "whole", lambda folder: runs.trained(folder, tiny_store))
    found = sorted(folder.rglob("*"))
    yield folder
    assert sorted(folder.rglob("*")) == found, "a test wrote to the run that others share: let it take `copy`"


@pytest.fixture
def compiled_once():
    """`runs.compiled_once`."""
    from tests import runs

    with runs.compiled_once():
        yield


@pytest.fixture
def copy(whole_run, tmp_path):
    """A copy of the whole run that a test may change."""
    return shutil.copytree(whole_run, tmp_path / "copy")
