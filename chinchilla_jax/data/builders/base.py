"""What our TFDS builders share."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds


class TextBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of texts with names. A subclass has LICENCE, HOMEPAGE and `splits(raw) -> {split: documents}`."""

    VERSION = tfds.core.Version("1.0.0")
    LICENCE = ""
    HOMEPAGE = ""
    code_path = None  # TFDS would look for a checksum file there, by way of a package that it does not declare

    def splits(self, raw: Path) -> dict[str, Iterable[tuple[str, str]]]:
        """(name, text) of the documents of each split, from the raw files in `raw` or from downloads to there."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict({"name": tfds.features.Text(), "text": tfds.features.Text()}),
            homepage=self.HOMEPAGE,
            license=self.LICENCE,
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        raw = Path(self._data_dir_root) / "raw" / self.name
        return {split: self._generate_examples(documents) for split, documents in self.splits(raw).items()}

    def _generate_examples(self, documents: Iterable[tuple[str, str]]) -> Iterator[tuple[int, dict[str, str]]]:
        for number, (name, text) in enumerate(documents):
            yield number, {"name": name, "text": text}
