"""safetensors files, read back by the library."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from chinchilla_jax.interop.write_tensors import ALIGNED, Tensor, split, write_file, write_folder

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # which is not contiguous
    "b": np.float16([[1, -2]]), "scalar": np.float32(7), "empty": np.zeros((0, 5), np.float32),
    "c": np.arange(9).astype(ml_dtypes.bfloat16),
}  # fmt: skip


def tensors(arrays=ARRAYS) -> list[Tensor]:
    """To be written."""
    return [Tensor(name, np.shape(x), np.asarray(x).dtype, lambda x=x: np.asarray(x)) for name, x in arrays.items()]


def test_the_library_reads_what_is_written(tmp_path):
    write_file(tmp_path / "m.safetensors", tensors())
    found = load_file(tmp_path / "m.safetensors")
    assert found.keys() == ARRAYS.keys()
    assert all(np.array_equal(found[name], x) and found[name].dtype == x.dtype for name, x in ARRAYS.items())
    with safe_open(tmp_path / "m.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    (size,) = struct.unpack("<Q", (tmp_path / "m.safetensors").read_bytes()[:8])
    assert size % ALIGNED == 0


def test_a_tensor_that_is_not_what_it_said_is_never_written(tmp_path):
    for made in (np.zeros((2, 2), np.float32), np.zeros(3, np.float16)):
        with pytest.raises(ValueError, match=r"x is .*, not float32\[3\]"):
            write_file(tmp_path / "m", [Tensor("x", (3,), np.dtype(np.float32), lambda made=made: made)])


@pytest.mark.parametrize(
    "limit, sizes", [(100, [5]), (12, [1, 1, 2, 1]), (11, [1, 1, 1, 2]), (1, [1, 1, 1, 1, 1]), (20, [1, 2, 2])]
)
def test_shards_are_filled_in_order_up_to_their_limit(limit, sizes):
    """One tensor alone may be larger than a shard."""
    made = [Tensor(str(n), (size,), np.dtype(np.float32), None) for n, size in enumerate((4, 3, 2, 1, 1))]
    shards = split(made, limit)
    assert [x for shard in shards for x in shard] == made and [len(shard) for shard in shards] == sizes
    assert all(len(shard) == 1 or sum(x.nbytes for x in shard) <= limit for shard in shards)


def test_an_index_names_the_file_of_every_tensor(tmp_path):
    write_folder(tmp_path, tensors(), 20)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(np.asarray(x).nbytes for x in ARRAYS.values())
    for file in set(index["weight_map"].values()):
        assert load_file(tmp_path / file).keys() == {name for name, its in index["weight_map"].items() if its == file}
    assert index["weight_map"].keys() == ARRAYS.keys()
    (tmp_path / "one").mkdir()
    write_folder(tmp_path / "one", tensors(), 1000)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["model.safetensors"]
