"""When glibc is told to keep freed memory: on a CPU alone, and with which settings."""

import ctypes
import importlib.util
import platform
from importlib import metadata
from types import SimpleNamespace

import pytest

from chinchilla_jax.parallel import host


@pytest.fixture
def told(monkeypatch):
    """What glibc is told, by a library of ours in its place; on a machine with nothing but a CPU, not asked for."""
    calls = []

    class Library:
        def mallopt(self, name, value):
            calls.append((name, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.39"))
    monkeypatch.setattr(host, "jax", SimpleNamespace(config=SimpleNamespace(jax_platforms="")))
    monkeypatch.setattr(metadata, "entry_points", lambda group: [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return calls


def test_freed_memory_is_kept(told):
    """No mmap for large pieces, and no trimming below 2 GiB, the largest threshold that there is."""
    assert host.keep_freed_memory() and dict(told) == {-8: 1, -4: 0, -1: 2**31 - 1}


@pytest.mark.parametrize("found", ["plug-in", "libtpu", "musl"])
def test_an_accelerator_or_another_libc_is_left_alone(told, monkeypatch, found):
    if found == "plug-in":
        monkeypatch.setattr(metadata, "entry_points", lambda group: ["cuda"] if group == "jax_plugins" else [])
    elif found == "libtpu":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "libtpu" else None)
    else:
        monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not host.keep_freed_memory() and told == []


def test_who_asks_for_the_cpu_gets_it_whatever_is_installed(told, monkeypatch):
    monkeypatch.setattr(metadata, "entry_points", lambda group: ["cuda"])
    host.jax.config.jax_platforms = "cpu"
    assert host.keep_freed_memory()
