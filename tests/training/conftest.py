"""Checkpoints that several files of this folder read or injure, and a bucket for others."""

import shutil

import pytest

from tests import bucket
from tests.training import states
from tests.training.states import opened


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    """A folder with checkpoints 10, 20 and 30 of 8 devices."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    with opened(folder) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, states.make(step))
    return folder


@pytest.fixture
def folder(three, tmp_path):
    """A copy of `three` to injure."""
    return shutil.copytree(three, tmp_path / "checkpoints")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Where the objects of gs:// are."""
    bucket.install(tmp_path, monkeypatch.setattr)
    return tmp_path
