"""An adapter folder of peft's as leaves of a run that trains an adapter."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chinchilla_jax.config import ModelConfig, TaskConfig, require
from chinchilla_jax.disk import read_json
from chinchilla_jax.finetuning.methods import Recipe
from chinchilla_jax.interop import heads, peft_config
from chinchilla_jax.interop import peft_names as names
from chinchilla_jax.interop.peft import CONFIG, WEIGHTS
from chinchilla_jax.interop.source import check_tensors, leaf_of
from chinchilla_jax.interop.tensors import FLOATS, opened
from chinchilla_jax.tasks import kept
from chinchilla_jax.training.one_by_one import Deferred


class Adapter:
    """An adapter folder: `tune` and `task` are its settings, `read` gives its tensors, without their fringe shapes."""

    def __init__(self, folder: Path, base: str):
        self.told = read_json(folder / CONFIG)
        path = folder / WEIGHTS
        require(path.exists(), f"{folder} has no {WEIGHTS}; other kinds of files are not loaded")
        with opened(path) as file:
            dtypes = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            require(dtypes <= set(FLOATS), f"{path} holds {', '.join(sorted(dtypes))}; {', '.join(FLOATS)} are read")
            self.arrays = {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
        self.folder, self.files = folder, [folder / CONFIG, path]
        self.tune = peft_config.to_tune(self.told, self._modules(path), base)
        self.task = self._task()
        self._unfold()

    def _modules(self, path: Path) -> set[str]:
        found = {name: names.MODULE.fullmatch(name) for name in self.arrays}
        odd = [name for name, match in found.items() if not match and not self._beside(name)]
        require(not odd, f"{path}: {', '.join(odd[:3])} is not supported; {peft_config.MERGE}")
        return {match.group(1) for match in found.values() if match}

    def _beside(self, name: str) -> bool:
        """Whether a tensor is that of a prompt, of rows, or of a head."""
        return name == names.PROMPT or name.endswith(names.DELTA) or name in self._head()

    def _head(self) -> list[str]:
        """The names of a head's kernel and bias."""
        head = peft_config.head_of(self.told)
        prompt = self.told.get("peft_type") == "PROMPT_TUNING"
        return [names.head(f"{head}/{leaf}", prompt).theirs for leaf in ("kernel", "bias")] if head else []

    def _task(self) -> TaskConfig:
        """The task of a head. peft says no labels: they are those of a run of ours, or as transformers calls them."""
        head = peft_config.head_of(self.told)
        if not head:
            return TaskConfig()
        kernel = self._head()[0]
        require(kernel in self.arrays, f"{self.folder}: {kernel} is missing")
        count = len(self.arrays[kernel])
        require(count > 1, f"{self.folder}: a head of {count} labels has nothing to tell apart")
        told, task = kept.read_task(self.folder), {"num_labels": count}
        labels = told.get("labels")
        own = isinstance(labels, list) and len(labels) == count and all(isinstance(name, str) for name in labels)
        task |= {"id2label": dict(enumerate(labels))} if own else {}
        task |= {"problem_type": heads.SEVERAL} if told.get("kind") == "multilabel" else {}
        return heads.read_as(heads.task_of(task, head), told)

    def _unfold(self) -> None:
        """Take columns and rows of one for vectors, put AdaLoRA's triplets back, and give LoRA's matrices one rank."""
        if "a" in (form := peft_config.FORMS[self.tune.method].tensors) and self.tune.method != "adalora":
            self._level(form["a"], form["b"])
        pattern, count = peft_config.table(self.told, "rank_pattern"), self.tune.start_rank
        for key, alive in pattern.items() if self.tune.method == "adalora" else ():
            held = isinstance(alive, list) and len(alive) == count and all(type(each) is bool for each in alive)
            require(held, f"rank_pattern of {key} is no list of {count} times true or false")
            module, places = names.PREFIX + key.rpartition(".lora_")[0], np.array(alive)
            for part, axis in (("lora_A", 0), ("lora_B", 1), ("lora_E", 0)):
                self._spread(f"{module}.{part}", places, axis)
        for name, x in self.arrays.items():
            if name.endswith(("lora_E", "ia3_l")) and 1 in x.shape:
                self.arrays[name] = x.reshape(-1)

    def _level(self, a: str, b: str) -> None:
        """Give every matrix the rank of the widest, with zeros, and one scale: B takes what its own differs by."""
        modules = [name.removesuffix(a) for name in self.arrays if name.endswith(f".{a}")]
        tune, own, ranks = self.tune, {}, {}
        for module in modules:
            place = module.removeprefix(names.PREFIX).removesuffix(".")
            ranks[module] = peft_config.of_module(self.told, "rank_pattern", place, int, tune.rank)
            alpha = peft_config.of_module(self.told, "alpha_pattern", place, float, tune.alpha)
            own[module] = dataclasses.replace(tune, rank=ranks[module], alpha=alpha).scale()
        widest = max(ranks.values(), default=tune.rank)
        for module, rank in ranks.items():
            if (rank, own[module]) == (widest, tune.scale()):
                continue
            for name, axis in ((module + a, 0), (module + b, 1)):
                shape = self.arrays[name].shape if name in self.arrays else ()
                held = shape[axis : axis + 1] == (rank,)
                require(held, f"{name} is {list(shape) or 'missing'} and adapter_config.json gives it the rank {rank}")
                self._spread(name, np.arange(widest) < rank, axis)
            self.arrays[module + b] = self.arrays[module + b] * np.float32(own[module] / tune.scale())
        grows = (widest / tune.rank) ** (0.5 if tune.method == "rslora" else 1)
        self.tune = dataclasses.replace(tune, rank=widest, alpha=tune.alpha * grows)

    def _spread(self, name: str, places: np.ndarray, axis: int) -> None:
        x = self.arrays.get(name)
        require(x is not None, f"{self.folder}: {name} is missing")
        if x.shape[axis] == len(places):  # peft leaves what kept all its triplets as it is
            return
        require(x.shape[axis] == places.sum(), f"{name} is {list(x.shape)} and rank_pattern leaves {places.sum()}")
        whole = np.zeros((len(places), *x.shape[1:]) if axis == 0 else (x.shape[0], len(places)), np.float32)
        whole[(places, slice(None)) if axis == 0 else (slice(None), places)] = x
        self.arrays[name] = whole

    def pieces(self, cfg: ModelConfig) -> int:
        """Rows of the table: those of the base, and those of pieces that the adapter brings."""
        new = sorted(i for i in self.tune.rows if i >= cfg.vocab_size)
        require(
            new == list(range(cfg.vocab_size, cfg.vocab_size + len(new))),
            f"{self.folder}: trainable_token_indices name {new[:1]} and the base has {cfg.vocab_size} rows; new ids "
            "follow the last of them without a gap",
        )
        return cfg.vocab_size + len(new)

    def part_rows(self, recipe: Recipe, base: Any) -> None:
        """Take from rows, which peft keeps whole, those of the base: ours are added to them. No rows: nothing is."""
        there = [name for table in recipe.rows if (name := names.delta(table).theirs) in self.arrays]
        require(bool(there), f"{self.folder}: {names.delta(recipe.rows[0]).theirs} is missing")
        for table in recipe.rows:
            name, ids = names.delta(table).theirs, np.array(self.tune.rows)
            own = np.asarray(base[table.split("/")[0]]["table"][ids], np.float32)
            found = self.arrays.get(name, own)
            require(
                found.shape == own.shape, f"{name} is {list(found.shape)} and {len(ids)} rows are {list(own.shape)}"
            )
            self.arrays[name] = found - own

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a tensor."""
        return self.arrays[name][index]

    def leaves(self, recipe: Recipe, where: dict[str, jax.ShapeDtypeStruct]) -> dict[str, Deferred]:
        """Every leaf of `where`, the paths of what trains."""
        rows, wanted = names.of(recipe), {}
        for path, x in where.items():
            name = rows[path]
            shape = name.flattened(x.shape[1:] if name.stacked else x.shape)
            wanted |= {name.theirs.format(n=n): shape for n in (range(recipe.cfg.layers) if name.stacked else [0])}
        check_tensors(str(self.folder), {name: x.shape for name, x in self.arrays.items()}, wanted)
        return {path: Deferred(x, partial(leaf_of, self, rows[path], x)) for path, x in where.items()}
