"""Splits of a store: types of tokens, parts by source, and damaged indices."""

import numpy as np
import pytest

from chinchilla_jax.data import split as splits
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.disk import checksum
from chinchilla_jax.errors import UserError
from tests.data.test_manifest import rewrite


def test_the_type_grows_with_the_vocabulary():
    assert [splits.token_dtype(n).str for n in (300, 65_536, 65_537)] == ["<u2", "<u2", "<u4"]


def test_an_index_of_objects_is_refused(folder):
    np.save(folder / "train.idx.npy", np.array([{}], object), allow_pickle=True)
    path = folder / "train.idx.npy"
    entry = {"bytes": path.stat().st_size, "xxh3_128": checksum(path)}
    rewrite(folder, lambda manifest: manifest["files"].update({"train.idx.npy": entry}))
    with pytest.raises(UserError, match="damaged"):
        TokenStore.open(folder)
