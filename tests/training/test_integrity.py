"""Fingerprints against numpy, and a manifest that notices every changed bit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from chinchilla_jax import disk
from chinchilla_jax.training import integrity
from chinchilla_jax.training.integrity import Damaged
from tests.training import states


def oracle(x) -> list[int]:
    """The two sums in numpy, on 64-bit integers, from the bytes in memory."""
    x = np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
    raw = np.frombuffer(x.tobytes(), {1: np.uint8, 2: np.uint16}.get(x.dtype.itemsize, np.uint32)).astype(np.uint64)
    place = np.arange(1, raw.size + 1, dtype=np.uint64)
    return [int(raw.sum() % 2**32), int((raw * place % 2**32).sum() % 2**32)]


def found(leaves: dict) -> list[list[int]]:
    return np.asarray(integrity.fingerprint(leaves)).tolist()


def test_fingerprint_equals_numpy_for_every_type():
    rng = np.random.default_rng(0)
    leaves = {}
    for dtype in (
        "float32",
        "float16",
        "bfloat16",
        "float8_e4m3fn",
        "int8",
        "uint8",
        "int16",
        "int32",
        "uint32",
        "bool",
    ):
        leaves[dtype] = jnp.asarray(rng.normal(size=(5, 7, 3)) * 100).astype(dtype)
    leaves |= {"scalar": jnp.float32(-3.5), "key": jax.random.split(jax.random.key(1), 4), "none": jnp.zeros((0, 3))}
    assert found(leaves) == [oracle(x) for x in leaves.values()]


def test_fingerprint_of_64_bit_leaves():
    with jax.enable_x64(True):
        leaves = {"f": jnp.linspace(-1, 1, 11, dtype=jnp.float64), "i": jnp.arange(-4, 9, dtype=jnp.int64) * 2**33}
        assert found(leaves) == [oracle(x) for x in leaves.values()]


def test_fingerprint_is_the_same_on_every_mesh():
    x = np.random.default_rng(1).normal(size=(16, 8, 40)).astype(np.float32)
    for devices in (1, 2, 8):
        for spec in (("fsdp",), (None, "fsdp"), (None, None, "fsdp"), ()):
            placed = jax.device_put(x, NamedSharding(states.mesh(devices), PartitionSpec(*spec)))
            assert found({"x": placed}) == [oracle(x)]


def test_fingerprint_gathers_nothing():
    placed = jax.device_put(jnp.zeros((16, 8)), NamedSharding(states.mesh(8), PartitionSpec("fsdp")))
    program = integrity._program(NamedSharding(states.mesh(8), PartitionSpec())).lower([placed]).compile().as_text()
    assert "all-reduce" in program and "all-gather" not in program


def test_fingerprint_notices_every_flip_and_every_swap():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(32, 24)).astype(np.float32)
    good = found({"x": jnp.asarray(x)})
    for _ in range(200):
        y = x.copy()
        y.view(np.uint32).reshape(-1)[rng.integers(y.size)] ^= np.uint32(1 << rng.integers(32))
        assert found({"x": jnp.asarray(y)}) != good
    for _ in range(50):
        y = x.copy()
        i, j = rng.choice(len(y), 2, replace=False)
        y[[i, j]] = y[[j, i]]
        assert found({"x": jnp.asarray(y)}) != good


@pytest.fixture
def folder(tmp_path):
    """A step folder with two files and a manifest."""
    (tmp_path / "default").mkdir()
    (tmp_path / "default/a").write_bytes(b"hello")
    (tmp_path / "b").write_bytes(b"")
    leaves = {"w": {"shape": [2], "dtype": "float32", "fingerprint": [1, 2]}}
    integrity.write_manifest(tmp_path, {"step": 3, "meta": {"name": "Ünïcode", "lr": 1e-4}, "leaves": leaves}, {})
    return tmp_path


def check(folder, manifest):
    integrity.check_sizes(folder, manifest)
    integrity.check_contents(folder, manifest, [f["path"] for f in manifest["files"]])


def test_manifest_comes_back(folder):
    manifest = integrity.read_manifest(folder)
    check(folder, manifest)
    assert manifest["step"] == 3 and manifest["meta"] == {"name": "Ünïcode", "lr": 1e-4}
    assert {f["path"]: f["size"] for f in manifest["files"]} == {"default/a": 5, "b": 0}


def test_every_byte_of_the_manifest_is_protected(folder):
    path = folder / integrity.MANIFEST
    good = path.read_bytes()
    for place in range(len(good)):
        for bit in {5, place % 8}:  # bit 5 turns capitals into small letters, which JSON may not care about
            path.write_bytes(good[:place] + bytes([good[place] ^ (1 << bit)]) + good[place + 1 :])
            with pytest.raises(Damaged, match=r"manifest\.json"):
                integrity.read_manifest(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"null", b'{"checksum": "00"}', b"\xff\xfe", b"[" * 100_000, bytes(4096)]
)
def test_what_is_no_manifest_is_refused(folder, content):
    (folder / integrity.MANIFEST).write_bytes(content)
    with pytest.raises(Damaged):
        integrity.read_manifest(folder)


def sealed(folder, **changes) -> dict:
    """Write a manifest with `changes` and a checksum that fits, as a stranger could, and read it."""
    body = integrity.read_manifest(folder) | changes
    (folder / integrity.MANIFEST).write_bytes(integrity._render(body))
    return integrity.read_manifest(folder)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "default/../../outside", ""])
def test_a_strangers_paths_are_never_opened(folder, path):
    (folder.parent / "outside").write_bytes(b"hello")
    files = [*integrity.read_manifest(folder)["files"], {"path": path, "size": 5, "xxh3_128": "0" * 32}]
    with pytest.raises(Damaged, match="is missing"):
        check(folder, sealed(folder, files=files))


@pytest.mark.parametrize(
    "changes",
    [{"files": 3}, {"files": [{"path": 1}]}, {"step": "3"}, {"leaves": [1]}, {"meta": None}, {"leaves": {"w": 1}}],
)
def test_a_strangers_fields_are_checked(folder, changes):
    with pytest.raises(Damaged, match="lacks fields"):
        sealed(folder, **changes)


def test_links_are_refused(folder):
    manifest = integrity.read_manifest(folder)
    (folder / "b").unlink()
    (folder / "b").symlink_to("/dev/zero")
    with pytest.raises(Damaged, match="neither a file nor a folder"):
        integrity.check_sizes(folder, manifest)
    (folder / integrity.MANIFEST).rename(folder.parent / "elsewhere.json")
    (folder / integrity.MANIFEST).symlink_to(folder.parent / "elsewhere.json")
    with pytest.raises(Damaged, match="not a plain file"):
        integrity.read_manifest(folder)


def test_manifest_is_plain_json(folder):
    body = json.loads((folder / integrity.MANIFEST).read_text())
    assert list(body)[-1] == "checksum" and len(body["checksum"]) == 32


def test_a_process_knows_its_own_files_and_the_first_reads_the_rest(folder, monkeypatch):
    mine = folder / "default/params/ocdbt.process_1/d"
    mine.mkdir(parents=True)
    (mine / "x").write_bytes(b"x")
    known = integrity.own_checksums(folder, 1)
    assert known == {"default/params/ocdbt.process_1/d/x": disk.checksum(mine / "x")}
    read, hash_files = [], integrity.hash_files
    monkeypatch.setattr(integrity, "hash_files", lambda at, names: read.extend(names) or hash_files(at, names))
    integrity.write_manifest(folder, {"step": 3, "meta": {}, "leaves": {}}, known)
    assert sorted(read) == ["b", "default/a"]
    check(folder, integrity.read_manifest(folder))
