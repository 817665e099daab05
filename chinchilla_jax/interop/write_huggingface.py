"""A run as a Hugging Face folder that transformers, vLLM and llama.cpp's converter read."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from chinchilla_jax.config import Config, ModelConfig, TaskConfig, require
from chinchilla_jax.interop import config_json, files, heads
from chinchilla_jax.interop.architectures import ARCHITECTURES
from chinchilla_jax.interop.huggingface import ZEROS
from chinchilla_jax.interop.names import Name, find
from chinchilla_jax.interop.tokenizers import export_tokenizer
from chinchilla_jax.interop.write_tensors import Tensor, write_folder
from chinchilla_jax.optim.paths import named
from chinchilla_jax.tasks import kept
from chinchilla_jax.training import origin as origins

TYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


class Model(NamedTuple):
    """Whole parameters with their settings, and our name of the head (empty for none)."""

    params: Any
    config: Config
    head: str


def write(folder: Path, run_dir: Path, model: Model, dtype: str, limit: int) -> dict:
    """Fill `folder`; {"architecture": ..., "notes": [...]}. `limit`: bytes of a shard."""
    origin, cfg, task = origins.read(run_dir), model.config.model, model.config.task
    row = config_json.choose(cfg, origin.get("architecture", ""), model.head)
    name = heads.class_of(row, model.head)
    zeros = config_json.biases(ARCHITECTURES[row], cfg) & ZEROS.keys()
    # A class with a head has no output table.
    params = {part: x for part, x in model.params.items() if not (model.head and part == "unembed")}
    tensors = list(all_tensors(params, cfg, TYPES[dtype], sorted(zeros)))
    trunk = ARCHITECTURES[row].trunks.get(model.head, "model")
    tensors = [x._replace(name=re.sub(r"^model\.", f"{trunk}.", x.name)) for x in tensors]
    exported = export_tokenizer(run_dir, folder, model.config.context)
    settings = config_json.config_json(cfg, row, dtype, model.config.context, exported.ids, task, model.head)
    (folder / "config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_folder(folder, tensors, limit)
    if model.head and (run_dir / kept.FILE).exists():
        shutil.copyfile(run_dir / kept.FILE, folder / kept.FILE)
    (folder / "README.md").write_text(card(run_dir, origin, name, dtype, task, model.head), encoding="utf-8")
    files.write_sums(folder)
    return {"architecture": name, "notes": exported.notes}


def all_tensors(params: Any, cfg: ModelConfig, dtype: np.dtype, zeros: Sequence[str] = ()) -> Iterator[Tensor]:
    """Every tensor under its name at Hugging Face, layer by layer; `zeros` names biases that we lack, of `ZEROS`."""
    rows = [(find(path), leaf) for path, leaf in named(params).items()]
    order = {"embed": 0, "norm": 2, "unembed": 3, "heads": 3}
    rows.sort(key=lambda row: order.get(row[0].ours.split("/")[0], 1))
    stacked = [(name, leaf) for name, leaf in rows if name.stacked]
    for name, leaf in rows:
        if not name.stacked:
            yield _tensor(name, name.theirs, leaf.shape, partial(np.asarray, leaf), dtype)
        elif name is stacked[0][0]:
            for n in range(cfg.layers):
                for inner, whole in stacked:
                    yield _tensor(inner, inner.theirs.format(n=n), whole.shape[1:], partial(_layer, whole, n), dtype)
                for key in zeros:
                    zero = partial(np.zeros, (cfg.d_model,), dtype)
                    yield Tensor(ZEROS[key].format(n=n), (cfg.d_model,), dtype, zero)


def _layer(leaf: jax.Array, n: int) -> np.ndarray:
    return np.asarray(leaf[n])


def _tensor(name: Name, theirs: str, shape: tuple[int, ...], make, dtype: np.dtype) -> Tensor:
    def made() -> np.ndarray:
        return rounded(theirs, name.to_theirs(make()), dtype)

    return Tensor(theirs, name.flattened(shape), dtype, made)


def rounded(name: str, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A tensor in a shorter type; `UserError` for one that does not fit."""
    with np.errstate(over="ignore"):
        found = x.astype(dtype)
    require(bool(np.isfinite(found).all()), f"{name} does not fit into {dtype}; choose --dtype bfloat16")
    return found


def quoted(name: str) -> str:
    """A licence as YAML has it: its short name as it is, another text in quotes."""
    return name if re.fullmatch(r"[\w.+-]+", name) else json.dumps(name)


def card(run_dir: Path, origin: dict[str, Any], architecture: str, dtype: str, task: TaskConfig, head: str) -> str:
    """A short model card, with the licence where one is known, and how a head was fed."""
    tag = heads.HEADS[head].pipeline if head else "text-generation"
    header = {"library_name": "transformers", "pipeline_tag": tag}
    header |= {"license": quoted(origin["license"])} if origin.get("license") else {}
    source = f" Its weights started as `{Path(origin['source']).name}`." if origin else ""
    lines = ["---", *(f"{key}: {value}" for key, value in header.items()), "---", ""]
    lines += [f"# {run_dir.absolute().name}", "", f"{architecture}, {dtype}, written by chinchilla_jax.{source}", ""]
    begins = " The bos token stands before it." if head == "labels" and task.opening else ""
    twice = " It stands there twice, and the second copy counts." if task.source == "twice" else ""
    lines += [f"{heads.HEADS[head].fed}{begins}{twice} See {kept.FILE}.", ""] if head else []
    return "\n".join(lines)
