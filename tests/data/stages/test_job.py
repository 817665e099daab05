"""How a corpus is cut into partitions, and the settings that all stages share."""

from chinchilla_jax.config import DataConfig, to_dict
from chinchilla_jax.config.corpus import NearConfig
from chinchilla_jax.data.stages import job


def test_partitions_hold_about_their_size():
    shapes = {size: job.shape(size) for size in (0, 10, 9 << 20, 3 << 30, 5 << 40)}
    assert [s["bits"] for s in shapes.values()] == [0, 0, 1, 9, 12]
    assert shapes[5 << 40]["segment"] > 1 << 30


def test_fewer_and_larger_parts_where_every_read_goes_over_the_network():
    for size in (1 << 20, 1 << 30, 1 << 36):
        here, there = job.shape(size), job.shape(size, remote=True)
        assert there["bits"] <= here["bits"] and there["segment"] >= here["segment"]
        assert (1 << here["bits"]) * job.PARTITION >= size / 2


def test_what_is_saved_is_loaded(tmp_path):
    config = DataConfig(vocab_size=300, weights=(1.0, 2.0), near=NearConfig("group"))
    values = {"config": to_dict(config), "store": "there", "bits": 3, "segment": 7}
    job.save(str(tmp_path), values)
    loaded = job.load(str(tmp_path), "1")
    assert loaded == job.Job(str(tmp_path), "there", config, 3, 7) and loaded.partitions == 8
    job.save(str(tmp_path), {**values, "bits": 4})
    assert job.load(str(tmp_path), "1") is loaded and job.load(str(tmp_path), "2").bits == 4
