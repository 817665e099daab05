"""`prepare`: sources -> documents -> duplicates and split -> tokenizer -> encoded streams -> token store."""

import contextlib
import json
from pathlib import Path

from chinchilla_jax import config as settings
from chinchilla_jax.config import DataConfig, expanded, require
from chinchilla_jax.data import remote
from chinchilla_jax.data.added_tokens import open_with_added
from chinchilla_jax.data.documents import Say
from chinchilla_jax.data.engines import engine
from chinchilla_jax.data.manifest import MANIFEST, VERSION, digest, seal
from chinchilla_jax.data.naming import with_store
from chinchilla_jax.data.pipeline import Corpus, Pipeline
from chinchilla_jax.data.sources import open_sources, states
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.workspace import publish, workspace
from chinchilla_jax.disk import checksum, is_remote, sync
from chinchilla_jax.errors import UserError

ELSEWHERE = (
    "store",
    "engine",
    "beam_options",
    "workers",
    "data_dir",
    "fallback",
)  # settings that do not change what is in a store


def prepare(
    config: DataConfig, say: Say = print, show: bool = True, force: bool = False, skip_broken: bool = False
) -> dict:
    """Make the token store of `config`, or find it made already; gives its manifest.

    A run that was killed or interrupted goes on where it was. Raises `UserError` for text that cannot be read, for a
    full disk, and for a store with other settings unless `force`. Nothing half-written is left then.
    """
    config = with_store(config)
    given, named = len(config.weights), len(config.sources)
    require(given in (0, named), f"--data.weights has {given} weights for {named} sources; give one for each")
    tokenizer = open_with_added(config.tokenizer).sha256 if config.tokenizer else ""
    found = existing(config, force, tokenizer)
    if found:
        say(f"{config.store} is complete and has these settings; nothing to do")
        if [source["name"] for source in found["sources"]] != list(config.sources):
            say("WARNING: it holds another source, since the one asked for was not to be had; --force tries again")
        return found
    is_url = is_remote(config.store)
    target = remote.local(config.store, b"") if is_url else Path(expanded(config.store))
    sources, state = open_sources(config, say, skip_broken), states(config)
    units = [source.units for source in sources]
    size = sum(unit["bytes"] for of in units for unit in of)
    key = digest({"settings": identity(config), "states": [state, *(s.state for s in sources)], "units": units,
                       "version": VERSION, "tokenizer": tokenizer})  # fmt: skip
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workspace(target, key=key, say=say))
        made, root, finished = folder / "store", str(folder), str(folder / "store")
        if is_url and config.engine == "beam":  # whose workers do not see this machine's disk
            root, finished = stack.enter_context(remote.workspace(config.store, key)), config.store.rstrip("/")
        made.mkdir(exist_ok=True)
        run = stack.enter_context(engine(config.engine, config.beam_options, config.workers, size))
        pipeline = Pipeline(root, finished, key, config, sources, run, show)
        pipeline.start()
        corpus = pipeline.gather(say)
        tokenizer = pipeline.tokenizer(corpus, made, say)
        counts, files = pipeline.encode(corpus, tokenizer, made)
        for left in made.glob("*.part"):  # of a run that was killed while it wrote
            left.unlink()
        manifest = describe(config, corpus, tokenizer, counts, made, state, files)
        if is_url:
            remote.upload(made, config.store)
        else:
            publish(made, target)
    return manifest


def existing(config: DataConfig, force: bool, tokenizer: str) -> dict | None:
    """The manifest of a usable store, None if one is to be made, `UserError` if another one is in its place.

    `tokenizer` is the hash of the one that the settings name, or "".
    """
    target = Path(expanded(config.store))
    if is_remote(config.store):
        if force or not remote.exists(config.store):
            return None
    elif not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    elif not (target / MANIFEST).is_file():
        raise UserError(f"{target} is there and is no token store; choose another --data.store")
    elif force:
        return None
    manifest = TokenStore.open(config.store).manifest
    # A setting that the store was made before stood at its default.
    changed = settings.differences({**identity(DataConfig()), **manifest["settings"]}, identity(config))
    if config.tokenizer and manifest["tokenizer"]["sha256"] != tokenizer:
        changed["tokenizer"] = ("another file", "this one")
    if changed:
        listed = ", ".join(f"data.{name} {old!r}, now {new!r}" for name, (old, new) in changed.items())
        raise UserError(
            f"{config.store} was made with other settings ({listed}); choose another --data.store or pass --force"
        )
    moved = settings.differences(manifest["states"], states(config))
    if any(new for _, new in moved.values()):
        raise UserError(
            f"{', '.join(moved)} changed since {config.store} was made; choose another --data.store or pass --force"
        )
    return manifest


def identity(config: DataConfig) -> dict:
    """The settings that decide what is in a store."""
    return {name: value for name, value in settings.to_dict(config).items() if name not in ELSEWHERE}


def describe(
    config: DataConfig, corpus: Corpus, tokenizer: BaseTokenizer, counts: dict, made: Path, state: dict, files: dict
) -> dict:
    """Write and give the manifest of the finished folder `made`; `files` are those whose checksums are known."""
    own = {
        path.name: {"bytes": path.stat().st_size, "xxh3_128": checksum(path)}
        for path in made.iterdir()
        if path.name not in files
    }
    manifest = {
        "version": VERSION,
        "splits": counts,
        "tokenizer": {
            "sha256": tokenizer.sha256,
            "pieces": tokenizer.size,
            "separator": tokenizer.separator,
            "lossless": tokenizer.lossless,
        },
        "sources": corpus.sources,
        "stages": corpus.stages,
        "duplicates": sum(source["duplicates"] for source in corpus.sources),
        "empty": sum(source["empty"] for source in corpus.sources),
        "settings": identity(config),
        "states": state,
        "files": dict(sorted((files | own).items())),
    }
    manifest["xxh3_128"] = seal(manifest)
    path = made / MANIFEST
    path.write_text(json.dumps(manifest, indent=1) + "\n")
    sync(path)
    return manifest
