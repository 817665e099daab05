"""What this program writes, told by its files, so that it is never read as text again.

A token store holds the validation text, and a run its samples: read as a source, they would be trained on.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from chinchilla_jax.data import fs
from chinchilla_jax.errors import UserError

UNFINISHED = ".preparing"  # ending of the folder beside a store in which that is being made

# Kind (as counted, and for one of it) -> the sets of files of which one is complete in such a folder.
KINDS = {
    "token stores": ("a token store", (("manifest.json", "train.bin"), ("manifest.json", "valid.txt"))),
    "runs": (
        "a run or a model",
        (
            ("config.json", "tokenizer.model"),
            ("config.json", "tokenizer.json"),
            ("config.json", "metrics.jsonl"),
            ("config.json", "checkpoints"),
            ("config.json", "model.safetensors"),
            ("config.json", "model.safetensors.index.json"),
            ("adapter_config.json", "adapter_model.safetensors"),
        ),
    ),
    "sweeps": ("a sweep", (("ladder.json", "runs.jsonl"),)),
    "fits": ("a fit", (("law.json", "fit.md"),)),
    "TFDS data sets": ("a TFDS data set (tfds:NAME reads it)", (("dataset_info.json", "features.json"),)),
}


def kind(folder: Path) -> str:
    """Which kind of output a folder is, or nothing."""
    return kind_with(lambda file: (folder / file).exists())


def kind_with(has: Callable[[str], bool]) -> str:
    """Which kind of output a folder is that `has` files of these names, or nothing."""
    for name, (_, sets) in KINDS.items():
        if any(all(map(has, files)) for files in sets):
            return name
    return ""


def remote(urls: Collection[str], whole: bool) -> dict[str, str]:
    """Which of these URLs lie in such a folder, or in one that is being made, and its kind.

    `whole`: they are all there is below a folder; otherwise what lies beside them is looked up.
    """
    above = {url: [url[:at] for at in range(url.index("://") + 3, len(url)) if url[at] == "/"] for url in urls}
    folders = {folder for of in above.values() for folder in (of if whole else of[-1:])}
    there = {*urls, *folders}
    if not whole:
        there |= {fs.join(folder, name) for folder in folders for name in fs.names(folder)}
    kinds = {folder: kind_with(lambda file, at=folder: fs.join(at, file) in there) for folder in folders}
    kinds |= {folder: "unfinished token stores" for folder in folders if folder.endswith(UNFINISHED)}
    return {url: found[0] for url, of in above.items() if (found := [kinds[f] for f in of if kinds.get(f)])}


def refuse(name: str, path: Path) -> None:
    """A `UserError` where a source is such a folder itself, or a file in one."""
    folder = path if path.is_dir() else path.parent
    if found := kind(folder.resolve()):
        what = KINDS[found][0]
        where = f"is {what}" if path.is_dir() else f"lies in {what}"
        raise UserError(
            f"--data.sources {name} {where}, which is no text to train on; name the text that it was made from, or "
            "copy the file elsewhere if it is meant"
        )
