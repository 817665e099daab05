"""What stands beside the files of a Hugging Face data set: its card and its lists of features are no text of it."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from chinchilla_jax.data import fs

RECORDS = re.compile(r"\.(parquet|(jsonl|ndjson)(\.gz|\.zst)?)", re.IGNORECASE)
LISTS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
CARD, HEADER = "README.md", b"---\n"  # the header holds the licence, languages and configs
ARROW = "Arrow files (`Dataset.to_parquet` writes what is read here)"


def without(paths: Sequence[Path | str], skipped: Counter) -> list:
    """`paths` without cards and lists of features, where there are records too; they are counted in `skipped`."""
    if not skipped[ARROW] and not any(RECORDS.search(Path(path).name) for path in paths):
        return list(paths)
    found = [path for path in paths if is_card(str(path))]
    skipped["cards of data sets"] += len(found)
    return [path for path in paths if path not in found]


def is_card(path: str) -> bool:
    """Whether a file describes a data set, by its name and, of a README.md, by its header."""
    name = path.rpartition("/")[2]
    return name in LISTS or (name == CARD and fs.read(path, 0, len(HEADER)) == HEADER)
