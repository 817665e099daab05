"""Adapters as peft keeps them: adapter_config.json and adapter_model.safetensors, a tensor a layer and module."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chinchilla_jax.config import Config, TuneConfig, require
from chinchilla_jax.finetuning.methods import below
from chinchilla_jax.finetuning.targets import Site
from chinchilla_jax.interop import files, peft_config
from chinchilla_jax.interop.names import Name, find
from chinchilla_jax.interop.source import check_tensors, leaf_of
from chinchilla_jax.interop.tensors import FLOATS, opened
from chinchilla_jax.interop.write_huggingface import TYPES
from chinchilla_jax.interop.write_tensors import Tensor, write_file
from chinchilla_jax.training import origin as origins
from chinchilla_jax.training.load import Loaded
from chinchilla_jax.training.one_by_one import Deferred

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
MODULE = re.compile(r"base_model\.model\.model\.layers\.\d+\.(?:self_attn|mlp)\.(\w+)\.(lora_\w+|ia3_l)(?:\.weight)?")


def row(tune: TuneConfig, site: Site, leaf: str) -> Name:
    """The name of theirs, with {n} for the layer, of a leaf of ours at a site."""
    tensor = peft_config.FORMS[tune.method].tensors[leaf]
    ours = f"adapters/{site.name}/{leaf}"
    if site.table:
        return Name(ours, tensor)
    module = find(site.name).theirs.removesuffix(".weight")
    return Name(ours, f"{PREFIX}{module}.{tensor}", {"a": site.contract, "b": 1}.get(leaf, 0))


def shaped(name: Name, vector: np.ndarray) -> np.ndarray:
    """A vector as they hold it: E and the factors of outputs as a column, those of inputs as a row."""
    if name.theirs.endswith("lora_E"):
        return vector.reshape(-1, 1)
    if not name.theirs.endswith("ia3_l"):
        return vector
    return vector.reshape(1, -1) if f".{peft_config.FORWARD}." in name.theirs else vector.reshape(-1, 1)


def write(folder: Path, run_dir: Path, loaded: Loaded, dtype: str) -> dict[str, Any]:
    """Fill `folder` with the adapter of a run; {"method": ..., "tensors": ..., "notes": [...]}."""
    config, recipe = loaded.program.config, loaded.program.recipe
    tune = config.tune
    known = ", ".join(peft_config.FORMS)
    require(tune.method in peft_config.FORMS, f"peft has no form of --tune.method {tune.method}; of {known} it has")
    more = sorted(loaded.trained.keys() - {"adapters"})
    require(not more, f"this run trains {', '.join(more)} beside its adapters, which is not written for peft")
    tables = [site.name for site in recipe.sites if site.table and tune.method != "prompt"]
    require(not tables, f"adapters of {', '.join(tables)} are not written for peft; --format hf --merge has them")
    tensors, ranks = [], {}
    for site in recipe.sites:
        parts = {leaf: np.asarray(x, np.float32) for leaf, x in below(loaded.trained["adapters"], site.name).items()}
        for n in range(1 if site.table else config.model.layers):
            made = layer(tune, site, parts, n, ranks)
            tensors += [
                Tensor(name, x.shape, TYPES[dtype], partial(x.astype, TYPES[dtype])) for name, x in made.items()
            ]
    modules = sorted({find(site.name).theirs.split(".")[-2] for site in recipe.sites})
    base = Path(tune.base)
    named = origins.read(base).get("source", str(base)) if base.exists() else str(base)
    told = peft_config.to_config(tune, config.model, modules, named, ranks)
    (folder / CONFIG).write_text(json.dumps(told, indent=2) + "\n")
    write_file(folder / WEIGHTS, tensors)
    files.write_sums(folder)
    stored = f"the adapter was trained on a base in {tune.weights}; on another its effect differs a little"
    return {"method": tune.method, "tensors": len(tensors), "notes": [stored] if tune.weights != "float" else []}


def layer(tune: TuneConfig, site: Site, parts: dict[str, np.ndarray], n: int, ranks: dict) -> dict[str, np.ndarray]:
    """The tensors of one layer's adapter; of AdaLoRA's those of the triplets that are left, noted in `ranks`."""
    found = {}
    for leaf, x in parts.items():
        name = row(tune, site, leaf)
        found[name.theirs.format(n=n)] = x if site.table else shaped(name, name.to_theirs(x[n]))
    if "e" in parts:
        alive = parts["e"][n] != 0
        e = row(tune, site, "e").theirs.format(n=n)
        ranks[e.removeprefix(PREFIX)] = alive.tolist()
        found = {name: x[:, alive] if name.endswith("lora_B") else x[alive] for name, x in found.items()}
    return found


class Adapter:
    """An adapter folder of peft's: `tune` are its settings, `read` gives its tensors, without their fringe shapes."""

    def __init__(self, folder: Path, base: str):
        self.told = files.read_json(folder / CONFIG)
        path = folder / WEIGHTS
        require(path.exists(), f"{folder} has no {WEIGHTS}; other kinds of files are not loaded")
        with opened(path) as file:
            dtypes = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            require(dtypes <= set(FLOATS), f"{path} holds {', '.join(sorted(dtypes))}; {', '.join(FLOATS)} are read")
            self.arrays = {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
        self.folder, self.files = folder, [folder / CONFIG, path]
        found = {name: MODULE.fullmatch(name) for name in self.arrays}
        odd = [name for name, match in found.items() if not match and name != "prompt_embeddings"]
        require(not odd, f"{path}: {', '.join(odd[:3])} is not understood")
        modules = {match.group(1) for match in found.values() if match}
        self.tune = peft_config.to_tune(self.told, modules, base)
        self._unfold()

    def _unfold(self) -> None:
        """Take columns and rows of one for vectors, and give AdaLoRA's triplets the places that they had."""
        pattern = self.told.get("rank_pattern") or {}
        for key, alive in pattern.items() if self.tune.method == "adalora" else ():
            module, places = PREFIX + key.rpartition(".lora_")[0], np.array(alive, bool)
            require(places.shape == (self.tune.start_rank,), f"rank_pattern of {key} has {len(places)} entries")
            for part, axis in (("lora_A", 0), ("lora_B", 1), ("lora_E", 0)):
                self._spread(f"{module}.{part}", places, axis)
        for name, x in self.arrays.items():
            if name.endswith(("lora_E", "ia3_l")) and 1 in x.shape:
                self.arrays[name] = x.reshape(-1)

    def _spread(self, name: str, places: np.ndarray, axis: int) -> None:
        x = self.arrays.get(name)
        require(x is not None, f"{self.folder}: {name} is missing")
        if x.shape[axis] == len(places):  # peft leaves what kept all its triplets as it is
            return
        require(x.shape[axis] == places.sum(), f"{name} is {list(x.shape)} and rank_pattern leaves {places.sum()}")
        whole = np.zeros((len(places), *x.shape[1:]) if axis == 0 else (x.shape[0], len(places)), np.float32)
        whole[(places, slice(None)) if axis == 0 else (slice(None), places)] = x
        self.arrays[name] = whole

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a tensor."""
        return self.arrays[name][index]

    def leaves(self, config: Config, sites: list[Site], where: dict[str, jax.ShapeDtypeStruct]) -> dict[str, Deferred]:
        """Every leaf of `where`, the paths of what trains."""
        rows = {}
        for site in sites:
            for leaf in peft_config.FORMS[self.tune.method].tensors:
                name = row(self.tune, site, leaf)
                rows[name.ours] = name
        wanted = {}
        for path, x in where.items():
            name = rows[path]
            shape = name.flattened(x.shape[1:] if name.stacked else x.shape)
            wanted |= {name.theirs.format(n=n): shape for n in (range(config.model.layers) if name.stacked else [0])}
        check_tensors(str(self.folder), {name: x.shape for name, x in self.arrays.items()}, wanted)
        return {path: Deferred(x, partial(leaf_of, self, rows[path], x)) for path, x in where.items()}
