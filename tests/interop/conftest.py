"""Folders of weights that many tests share."""

import pytest

from tests.interop import folders
from tests.interop.damage import KIND


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Two whole folders, of one file and of three, to be copied and damaged."""
    place = tmp_path_factory.mktemp("damaged")
    folders.folder(place / "single", KIND)
    folders.folder(place / "sharded", KIND, shards=3)
    return place
