"""A worker of the test suite that dies ends it, and says in which test."""

import os
import subprocess
import sys
from pathlib import Path

from tests import conftest

ROOT = Path(__file__).resolve().parent.parent


def test_a_dead_worker_ends_the_run_with_the_name_of_its_test(tmp_path):
    (tmp_path / "test_dies.py").write_text("import os\ndef test_it():\n    os.kill(os.getpid(), 9)\n")
    (tmp_path / "test_long.py").write_text(
        "import time, pytest\n@pytest.mark.parametrize('n', range(1000))\ndef test_it(n):\n    time.sleep(0.5)\n"
    )
    assert "tests.workers" in conftest.pytest_plugins
    command = [sys.executable, "-m", "pytest", "-p", "tests.workers", "-n", "2", "--dist", "loadfile", "-q"]
    ended = subprocess.run(
        [*command, "--max-worker-restart", "0", "-c", os.devnull, "--rootdir", tmp_path, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,  # all tests would take 500 s
    )
    assert ended.returncode == 1 and "died in test_dies.py::test_it" in ended.stdout, ended.stdout + ended.stderr
