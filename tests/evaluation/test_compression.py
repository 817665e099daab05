"""Bits a byte of general compressors: against files that they wrote, and no figure for what is too large."""

import random
import subprocess

import pytest

from chinchilla_jax.evaluation import compression


def test_bits_are_those_of_the_compressed_file(tmp_path):
    """Noise of 8 bits a byte does not shrink; a repeated line does, xz more than gzip."""
    path = tmp_path / "text"
    path.write_bytes(random.Random(0).randbytes(20_000))
    found = compression.bits_per_byte(path)
    assert all(8 < bits < 8.1 for bits in found.values()) and list(found) == ["gzip_bits_per_byte", "xz_bits_per_byte"]
    path.write_bytes(b"the sea carries old songs\n" * 5000)
    found = compression.bits_per_byte(path)
    assert found["xz_bits_per_byte"] < found["gzip_bits_per_byte"] < 0.1


@pytest.mark.parametrize("tool", ["gzip", "xz"])
def test_they_are_those_of_the_tools(tmp_path, tool):
    """To the few bytes of a header; skipped where the tool is not installed."""
    path = tmp_path / "text"
    words = random.Random(1).choices(["sea", "wind", "songs", "over", "stone", "naïve"], k=20_000)
    path.write_text(" ".join(words), encoding="utf-8")
    try:
        packed = subprocess.run([tool, "-9e" if tool == "xz" else "-9", "-c", path], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip(f"{tool} is not installed")
    bits = 8 * len(packed.stdout) / path.stat().st_size
    assert compression.bits_per_byte(path)[f"{tool}_bits_per_byte"] == pytest.approx(bits, rel=0.01)


@pytest.mark.parametrize("size", [0, 101])
def test_an_empty_or_a_very_large_file_has_no_figure(tmp_path, monkeypatch, size):
    monkeypatch.setattr(compression, "MOST_BYTES", 100)
    (tmp_path / "text").write_bytes(bytes(size))
    assert compression.bits_per_byte(tmp_path / "text") == {}
