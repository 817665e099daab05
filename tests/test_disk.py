"""Small files are whole, old or new, and hold nothing that JSON cannot say."""

import json
import os
import random
import subprocess
import sys

import pytest
import xxhash

from chinchilla_jax import disk


def test_what_json_cannot_say_is_null(tmp_path):
    disk.write_json(tmp_path / "a.json", {"x": [1.5, float("nan")], "y": {"z": float("inf")}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1.5, None], "y": {"z": None}}


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(broken, tmp_path, monkeypatch):
    disk.write_json(tmp_path / "a.json", 1)

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError):
        disk.write_json(tmp_path / "a.json", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and (tmp_path / "a.json").read_text() == "1\n"


def test_a_kill_leaves_one_or_the_other(tmp_path):
    """A process that writes two texts in turn is killed at whatever it does."""
    script = (
        "import sys, pathlib, itertools\n"
        "from chinchilla_jax import disk\n"
        "for n in itertools.count(): disk.write_json(pathlib.Path(sys.argv[1]), [n % 2] * 20000)\n"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "a.json")])
        while not (tmp_path / "a.json").exists():
            assert process.poll() is None
        process.kill()
        process.wait()
        found = json.loads((tmp_path / "a.json").read_text())
        assert len(found) == 20000 and len(set(found)) == 1


def test_the_checksum_is_that_of_the_content(tmp_path):
    for size in (0, 1, disk.CHUNK, disk.CHUNK * 2 + 17):
        content = random.Random(size).randbytes(size)
        (tmp_path / "f").write_bytes(content)
        assert disk.checksum(tmp_path / "f") == xxhash.xxh3_128(content).hexdigest()


@pytest.mark.parametrize("error", [KeyError("foo://"), ValueError("Protocol not known: foo")])
def test_a_scheme_that_nobody_knows_is_said_with_those_that_work(error):
    found = disk.unreachable("foo://x", error)
    assert str(found) == "foo://x cannot be reached: foo:// is not known here; use gs://, s3://, az:// or a local path"
    assert found.exit_code == 78


def test_the_package_of_a_scheme_is_named():
    found = str(disk.unreachable("s3://x", ImportError("Install s3fs to access S3")))
    assert found == "s3://x: this needs another package (Install s3fs to access S3); `pip install s3fs`"
    assert "pip install" not in str(disk.unreachable("ftp://x", ImportError("no ftp")))
    assert disk.unreachable("gs://x", TimeoutError()).exit_code == 74
