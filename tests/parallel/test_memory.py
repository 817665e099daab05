"""What a process may use of the machine's memory."""

from chinchilla_jax.parallel import memory


def test_a_container_has_what_it_is_given(tmp_path):
    """The least of the groups on the way up, in both versions of cgroups; "max" is no limit."""
    root, groups = tmp_path / "fs", tmp_path / "groups"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "memory.max").write_text("1000000\n")
    (root / "a" / "b" / "memory.max").write_text("max\n")
    groups.write_text("0::/a/b\n")
    assert memory.host_memory(groups, root) == 1e6
    (root / "memory" / "c").mkdir(parents=True)
    (root / "memory" / "c" / "memory.limit_in_bytes").write_text("2000\n")
    groups.write_text("3:cpu:/x\n2:memory,hugetlb:/c\n")
    assert memory.host_memory(groups, root) == 2000
    assert memory.host_memory(tmp_path / "none", root) > 1e8
