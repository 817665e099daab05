"""The config of a command: from a file, a run directory or the defaults, under a preset and single settings."""

import argparse
import contextlib
import dataclasses
import json
import os
import runpy
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, ModelConfig, closest, expanded, require, stored
from chinchilla_jax.data.naming import with_store
from chinchilla_jax.disk import is_remote
from chinchilla_jax.errors import UserError
from chinchilla_jax.model import presets

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SETTINGS_WITH_PATHS = (
    "data.store", "data.data_dir", "data.tokenizer", "data.decontaminate", "train.compile_cache", "tune.base",
)  # fmt: skip


def resolve(args: argparse.Namespace) -> Config:
    """The config file (or the run directory's, or the defaults), then the preset, then single settings.

    `args.told` becomes the settings that a config file says, if one is given. Those of `args.decided` are left out: the
    command finds them itself. Sources other than the config's have a store of their own, unless one is named.
    """
    decided = getattr(args, "decided", ())
    given = {name: value for name, value in vars(args).items() if "." in name and name not in decided}
    own = Path(args.run_dir, "config.json") if args.run_dir else None
    planned = getattr(args, "plan", "")
    require(not (planned and args.config), "--plan and --config both name a config; give one")
    require(
        not planned or Path(planned).is_file(), f"--plan {planned}: no such file; `plan --out {planned}` writes one"
    )
    defaults = getattr(args, "defaults", {})
    if args.config or planned:
        config = load(Path(args.config or planned))
        args.told = told(config)
        unsaid = {name: value for name, value in defaults.items() if name not in args.told}
        config = settings.replace(config, unsaid)
    elif own and own.exists():
        config = _with_store_of(args.run_dir, load(own))
    else:
        config = settings.replace(Config(), defaults)
    if given.get("model.preset"):
        shape = {f"model.{k}": v for k, v in presets.settings(given["model.preset"]).items()}
        given = {**shape, **given}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    if given.get("data.sources", config.data.sources) != config.data.sources:
        given = {"data.store": "", **given}  # the store of the config holds, and is named after, another text
    config = settings.replace(config, given)
    typed = {name: settings.get(config, name) for name in SETTINGS_WITH_PATHS}
    full = {k: tuple(map(expanded, v)) if isinstance(v, tuple) else expanded(v) for k, v in typed.items()}
    config = settings.replace(config, full)
    return dataclasses.replace(config, data=with_store(config.data))


def told(config: Config) -> set[str]:
    """The settings in which a config differs from the defaults: what its file says."""

    def leaves(values: dict, path: str) -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            yield from leaves(value, f"{path}{name}.") if isinstance(value, dict) else [(f"{path}{name}", value)]

    default = dict(leaves(settings.to_dict(Config()), ""))
    return {name for name, value in leaves(settings.to_dict(config), "") if value != default.get(name)}


def _with_store_of(run_dir: str, config: Config) -> Config:
    """A run's config keeps its store as it was typed: found again from another folder, where it lies above the run."""
    store = Path(config.data.store)
    if not config.data.store or is_remote(config.data.store) or store.exists():
        return config
    places = (above / store for above in Path(run_dir).resolve().parents)
    found = next((place for place in places if (place / "manifest.json").is_file()), store)
    return settings.replace(config, {"data.store": str(found)})


def find(path: Path) -> Path:
    """A config's file: `path`, or one that comes with the package, as `quickstart` or as the clone's own path to it."""
    found = (file for file in CONFIGS.rglob("*.py") if file.stem != "__init__")
    shipped = {file.relative_to(CONFIGS).with_suffix("").as_posix(): file for file in found}
    if path.is_file():
        return path
    name = path.as_posix()
    name = name.removeprefix("configs/").removesuffix(".py") if name.startswith("configs/") else name
    if name in shipped:
        return shipped[name]
    names = ", ".join(sorted(shipped))
    raise UserError(f"{path}: no such config file{closest(name, shipped)}; the package brings {names}")


def load(path: Path) -> Config:
    """A config from a .py file with `config()`, or from JSON; every fault is one line that names the file."""
    path = find(path)
    try:
        if path.suffix == ".json":
            values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_duplicates)
            values = values.get("config", values) if isinstance(values, dict) else values  # a plan.json holds one
            return _without_cache(stored.from_json(_with_preset(values)), path)
        with _importable(path.parent):
            made = runpy.run_path(os.fspath(path)).get("config")
            require(callable(made), "define a function config() that returns a Config")
            config = made()
        require(isinstance(config, Config), f"config() returned {type(config).__name__}, not Config")
        config = dataclasses.replace(config, model=_with_shape(config.model))
        return settings.from_dict(Config, settings.to_dict(config))  # a dataclass does not check types, this does
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # whatever a config file does wrong is for the user to correct
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON table; a setting that is there twice would be dropped without a word."""
    twice = {name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1}
    require(not twice, f"{', '.join(sorted(twice))}: there more than once; keep one")
    return dict(pairs)


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Inside, modules in `folder` can be imported, as by a script that lies there; afterwards they are forgotten, so
    that another folder's module of the same name is not taken for it."""
    place, before = folder.resolve(), set(sys.modules)
    sys.path.insert(0, str(place))
    try:
        yield
    finally:
        sys.path.remove(str(place))
        mine = {name for name in set(sys.modules) - before if _lies_in(place, sys.modules[name])}
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in mine:
                del sys.modules[name]


def _lies_in(folder: Path, module: types.ModuleType) -> bool:
    """Whether a module is a file of `folder`, or a package right below it."""
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    return any(Path(place).parent == folder for place in places if place)


def _without_cache(config: Config, path: Path) -> Config:
    """A JSON file may come from anybody, and what lies in the cache is executed: only a flag or a .py file names it."""
    if not config.train.compile_cache:
        return config
    print(
        f"note: {path} names a --train.compile-cache, which only the command line may; it is ignored", file=sys.stderr
    )
    return settings.replace(config, {"train.compile_cache": ""})


def _with_preset(values: Any) -> Any:
    """A JSON config with the shape of the preset that it names, below what it says itself."""
    model = values.get("model") if isinstance(values, dict) else None
    if not isinstance(model, dict) or not model.get("preset"):
        return values
    return {**values, "model": {**presets.settings(model["preset"]), **model}}


def _with_shape(model: ModelConfig) -> ModelConfig:
    """`ModelConfig(preset=NAME, ...)` with the shape of NAME below what it says itself.

    `presets.preset(NAME, ...)` has put it there already: what has more of it than of the defaults stays as it is.
    """
    if not model.preset:
        return model
    default = ModelConfig(preset=model.preset)
    told = {k: v for k, v in presets.settings(model.preset).items() if v != getattr(default, k)}
    same = [k for k in told if getattr(model, k) == told[k]]
    missing = {k: v for k, v in told.items() if getattr(model, k) == getattr(default, k)}
    return model if len(same) >= len(missing) else dataclasses.replace(model, **missing)
