"""`prepare`: sources -> spool -> duplicates and split -> tokenizer -> encoded streams -> token store."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from chinchilla_jax import config as settings
from chinchilla_jax.config import DataConfig, expanded
from chinchilla_jax.data import encode, remote, store, tokenizer_train
from chinchilla_jax.data.corpus import Corpus, gather
from chinchilla_jax.data.progress import progress
from chinchilla_jax.data.sources import Say, open_sources, states, with_store
from chinchilla_jax.data.spool import blocks, sample, texts
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import copy_tokenizer, open_tokenizer, tokenizer_file
from chinchilla_jax.data.workspace import publish, sync, workspace
from chinchilla_jax.errors import StorageError, UserError

ELSEWHERE = ("store", "workers", "data_dir", "fallback")  # settings that do not change what is in a store
# Training reads no more text than this: its memory peaks at 1.0 GB (BPE) and 0.7 GB (unigram) then.
SAMPLE_BYTES = {"bpe": 100 << 20, "unigram": 32 << 20}
SAMPLE_BLOCK = 1 << 14


def prepare(
    config: DataConfig, say: Say = print, show: bool = True, force: bool = False, skip_broken: bool = False
) -> dict:
    """Make the token store of `config`, or find it made already; gives its manifest.

    Raises `UserError` for text that cannot be read, and for a store with other settings unless `force`;
    `StorageError` for a full disk. Nothing half-written is left behind in any case.
    """
    config = with_store(config)
    found = existing(config, force)
    if found:
        say(f"{config.store} is complete and has these settings; nothing to do")
        if [source["name"] for source in found["sources"]] != list(config.sources):
            say("WARNING: it holds another source, since the one asked for was not to be had; --force tries again")
        return found
    is_remote = "://" in config.store
    target = remote.local(config.store, b"") if is_remote else Path(expanded(config.store))
    with workspace(target) as folder:
        made = folder / "store"
        made.mkdir()
        state = states(config)
        corpus = gather(config, open_sources(config, say, skip_broken), folder / "spool", say, show)
        tokenizer = make_tokenizer(config, corpus, made, say)
        counts = encode_all(config, corpus, made, show)
        manifest = describe(config, corpus, tokenizer, counts, made, state)
        if is_remote:
            remote.upload(made, config.store)
        else:
            publish(made, target)
    return manifest


def existing(config: DataConfig, force: bool) -> dict | None:
    """The manifest of a usable store, None if one is to be made, `UserError` if another one is in its place."""
    target = Path(expanded(config.store))
    if "://" in config.store:
        if force or not remote.exists(config.store):
            return None
    elif not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    elif not (target / store.MANIFEST).is_file():
        raise UserError(f"{target} is there and is no token store; choose another --data.store")
    elif force:
        return None
    manifest = TokenStore.open(config.store).manifest
    changed = settings.differences(manifest["settings"], identity(config))
    if config.tokenizer and manifest["tokenizer"]["sha256"] != open_tokenizer(config.tokenizer).sha256:
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


def make_tokenizer(config: DataConfig, corpus: Corpus, made: Path, say: Say) -> BaseTokenizer:
    """Train the tokenizer on the training split into the folder `made`, or copy the given one."""
    if config.tokenizer:
        given, default = open_tokenizer(config.tokenizer), DataConfig()
        for name in ("vocab_size", "tokenizer_kind", "tokenizer_sentences"):
            if getattr(config, name) not in (getattr(default, name), given.size):
                say(f"WARNING: --data.{name.replace('_', '-')} is not followed: --data.tokenizer is there already")
        copy_tokenizer(config.tokenizer, made)
        if not given.lossless:
            say(f"WARNING: {config.tokenizer} does not give every text back unchanged (its normalisation loses some)")
        return open_tokenizer(made)
    limit = SAMPLE_BYTES[config.tokenizer_kind]
    keep = min(1.0, config.tokenizer_sentences / corpus.lines, limit / max(1, corpus.train.bytes))
    say(
        f"training a {config.tokenizer_kind} tokenizer of {config.vocab_size:,} pieces on "
        f"{keep * corpus.train.bytes / 1e6:,.1f} MB of text"
    )
    read = corpus.train if keep == 1 else sample(blocks(corpus.train, SAMPLE_BLOCK), keep)

    def decoded() -> Iterator[str]:  # a block may begin or end inside a character
        return (text.decode(errors="ignore") for text in texts(corpus.spool, read))

    pieces = tokenizer_train.train(decoded, config, made / "tokenizer.model")
    if pieces < config.vocab_size:
        say(f"the text supports {pieces:,} pieces, fewer than --data.vocab-size {config.vocab_size:,}")
    return open_tokenizer(made)


def encode_all(config: DataConfig, corpus: Corpus, made: Path, show: bool) -> dict:
    """Write streams, indices and the validation text; gives tokens, documents and bytes of both splits."""
    size = corpus.train.bytes + corpus.valid.bytes
    free = shutil.disk_usage(made).free
    if free < size:
        raise StorageError(
            f"{free / 1e6:,.0f} MB are free for about {size / 1e6:,.0f} MB of tokens in {config.store}; free some "
            "space or choose another --data.store"
        )
    with open(made / store.VALID_TEXT, "wb") as file:
        file.writelines(texts(corpus.spool, corpus.valid))
    counts = {}
    with (
        encode.encoder(corpus.spool, tokenizer_file(made), config.workers, size) as run,
        progress("encoding", size, show) as advance,
    ):
        separator = open_tokenizer(made).separator
        for name, extents in (("train", corpus.train), ("valid", corpus.valid)):
            lengths = []
            with open(made / f"{name}.bin", "wb") as file:
                for task, (tokens, task_lengths) in zip(encode.tasks(extents), run(extents)):
                    file.write(tokens.data)
                    lengths.append(task_lengths)
                    advance(task.bytes)
                file.write(np.array([separator], tokens.dtype).data)
            lengths = np.concatenate(lengths)
            np.save(made / f"{name}.idx.npy", np.cumsum(lengths, dtype=np.uint64) - lengths)
            tokens = int(lengths.sum()) + 1
            counts[name] = {
                "tokens": tokens,
                "documents": len(lengths),
                "bytes": extents.bytes,
                "bytes_per_token": round(extents.bytes / tokens, 4),
            }
    return counts


def describe(
    config: DataConfig, corpus: Corpus, tokenizer: BaseTokenizer, counts: dict, made: Path, state: dict
) -> dict:
    """Write and give the manifest of the finished folder `made`."""
    manifest = {
        "version": store.VERSION,
        "splits": counts,
        "tokenizer": {
            "sha256": tokenizer.sha256,
            "pieces": tokenizer.size,
            "separator": tokenizer.separator,
            "lossless": tokenizer.lossless,
        },
        "sources": corpus.sources,
        "duplicates": sum(source["duplicates"] for source in corpus.sources),
        "empty": sum(source["empty"] for source in corpus.sources),
        "settings": identity(config),
        "states": state,
        "config": settings.to_dict(config),
        "files": {
            path.name: {"bytes": path.stat().st_size, "xxh3_128": store.checksum(path)}
            for path in sorted(made.iterdir())
        },
    }
    manifest["xxh3_128"] = store.seal(manifest)
    path = made / store.MANIFEST
    path.write_text(json.dumps(manifest, indent=1) + "\n")
    sync(path)
    return manifest
