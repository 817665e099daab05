"""Opening and copying tokenizers of every kind, also from object storage (gs://...)."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from chinchilla_jax.data.marks import ADDED, SIDECARS
from chinchilla_jax.data.tokenizer import Tokenizer
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizer_items import ItemTokenizer, is_catalogue
from chinchilla_jax.data.tokenizer_json import JsonTokenizer
from chinchilla_jax.disk import is_remote, unreachable
from chinchilla_jax.errors import UserError

NAMES = ("tokenizer.json", "tokenizer.model")  # of a folder with both, such as Mistral's, the first is taken


def open_tokenizer(path: str | Path) -> BaseTokenizer:
    """The tokenizer in a file or folder, of the kind that the file is of: JSON, items or a SentencePiece model."""
    file = tokenizer_file(path)
    try:
        if not is_json(file):
            return Tokenizer(file)
        return ItemTokenizer(file) if is_catalogue(file) else JsonTokenizer(file)
    except UserError as error:
        if is_remote(path):
            error.args = (str(error).replace(str(file), str(path)).replace(str(file.parent), str(path)),)
        raise


def tokenizer_file(path: str | Path) -> Path:
    """The file of a tokenizer: `path` itself or what a folder holds; of a URL a local copy.

    Raises `UserError` for a folder without one.
    """
    folder = fetched(str(path).rstrip("/")) if is_remote(path) else Path(path).expanduser()
    if not folder.is_dir():
        return folder
    found = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if found is None:
        where = path if is_remote(path) else folder
        way = f"put its {' or '.join(NAMES)} there, or see --data.tokenizer"
        raise UserError(f"{where}: no tokenizer in this folder; {way}")
    return found


@functools.cache
def fetched(url: str) -> Path:
    """A local copy of the tokenizer file or folder at `url`, which goes when this process ends.

    Raises `UserError` for what is not there and `StorageError` for what cannot be reached.
    """
    from etils import epath

    folder = Path(tempfile.mkdtemp(prefix="chinchilla_jax-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        there = epath.Path(url)
        is_folder = there.is_dir()
        top = there if is_folder else there.parent
        for name in (*(NAMES if is_folder else (there.name,)), *SIDECARS, ADDED):
            if (top / name).exists():
                (folder / name).write_bytes((top / name).read_bytes())
    except Exception as error:
        raise unreachable(url, error) from error
    if not is_folder and not (folder / there.name).is_file():
        raise UserError(f"{url}: there is no tokenizer here; see --data.tokenizer")
    return folder if is_folder else folder / there.name


def is_json(file: Path) -> bool:
    """Whether a file looks like JSON; a SentencePiece model begins with a control character."""
    try:
        with open(file, "rb") as opened:
            return opened.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))
    except OSError:
        return False  # said by whoever reads it


def copy_tokenizer(path: str | Path, folder: Path) -> Path:
    """Copy a tokenizer, byte for byte, under the name of its kind, with the files beside it that speak of it."""
    file = tokenizer_file(path)
    target = folder / NAMES[0 if is_json(file) else 1]
    shutil.copyfile(file, target)
    for name in SIDECARS:
        if (file.parent / name).is_file():
            shutil.copyfile(file.parent / name, folder / name)
    return target
