"""What general compressors make of a text: the yardstick for a language model's bits per byte."""

import gzip
import lzma
from pathlib import Path

# xz at its strongest reads about 1 MB a second; a sample beyond this would not be the same text any more.
MOST_BYTES = 64 << 20


def bits_per_byte(path: Path) -> dict[str, float]:
    """Bits per byte of `gzip -9` and `xz -9e` on a file; empty for a file too large to wait for."""
    if not 0 < path.stat().st_size <= MOST_BYTES:
        return {}
    text = path.read_bytes()
    sizes = {
        "gzip_bits_per_byte": len(gzip.compress(text, 9)),
        "xz_bits_per_byte": len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
    }
    return {name: 8 * size / len(text) for name, size in sizes.items()}
