"""Packages made up for the tests."""

import pytest

from chinchilla_jax.data.builders import download


@pytest.fixture
def package(monkeypatch, tmp_path):
    """package(path): every download gives this file."""

    def give(path):
        for name in ("wheel", "source"):
            monkeypatch.setattr(download, name, lambda *args: path)

    return give
