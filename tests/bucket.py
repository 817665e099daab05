"""gs:// as a local folder that is used like object storage: no rename, no append, no locks, no empty folders.

For this package and Orbax, which reach it by `epath`, and for TensorStore, whose own driver for gs:// is replaced by
the one for files. An object appears whole, when its file is closed.
"""

import glob
import os
import shutil
from pathlib import Path

from etils.epath import backend, gpath
from orbax.checkpoint._src.path import gcs_utils


class Bucket(backend._OsPathBackend):
    """The objects below `root`, by the URLs that begin with gs://."""

    def __init__(self, root: Path):
        self.root = Path(root)

    def at(self, url) -> Path:
        """Where an object lies."""
        return self.root / str(url).removeprefix("gs://")

    def open(self, path, mode):
        assert "a" not in mode and "+" not in mode, f"{path}: objects are written once"
        if "w" not in mode:
            return super().open(self.at(path), mode)
        part = self.root / f".part-{os.getpid()}-{os.urandom(4).hex()}"
        return Upload(open(part, mode), part, self.at(path))

    def exists(self, path):
        return self.at(path).is_file() or self.isdir(path)

    def isdir(self, path):
        return any(files for _, _, files in os.walk(self.at(path)))

    def listdir(self, path):
        if not self.isdir(path):
            raise FileNotFoundError(path)
        return [name for name in os.listdir(self.at(path)) if self.exists(f"{path}/{name}")]

    def makedirs(self, path, **how):
        pass

    def mkdir(self, path, *, exist_ok=False, mode=None):
        if self.exists(path) and not exist_ok:
            raise FileExistsError(path)

    def rmtree(self, path):
        if not self.isdir(path):
            raise FileNotFoundError(path)
        shutil.rmtree(self.at(path))

    def remove(self, path):
        self.at(path).unlink()

    def stat(self, path):
        if not self.exists(path):
            raise FileNotFoundError(path)
        return super().stat(self.at(path))

    def glob(self, path):
        return [f"gs://{Path(found).relative_to(self.root)}" for found in glob.glob(str(self.at(path)))]

    def walk(self, top, **how):
        for folder, folders, names in os.walk(self.at(top)):
            yield f"gs://{Path(folder).relative_to(self.root)}", folders, names

    def copy(self, path, dst, overwrite=False):
        self.at(dst).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.at(path), self.at(dst))

    def _no(self, *args, **how):
        raise OSError(38, "object storage renames nothing")

    rename = replace = _no


class Upload:
    """A file being written; its object is there when it is closed."""

    def __init__(self, file, part: Path, final: Path):
        self._file, self._part, self._final = file, part, final

    def __getattr__(self, name):
        return getattr(self._file, name)

    def close(self):
        if not self._file.closed:
            self._file.close()
            self._final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._part, self._final)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def install(root: Path, setattr=setattr) -> Bucket:
    """Let gs:// be `root` from now on; `setattr` may be that of a `monkeypatch`."""
    bucket = Bucket(root)
    setattr(gpath, "_PREFIX_TO_BACKEND", {**gpath._PREFIX_TO_BACKEND, "gs": bucket})
    setattr(gcs_utils, "get_kvstore_for_gcs", lambda url: {"driver": "file", "path": str(bucket.at(url))})
    setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)
    return bucket
