"""The examples of a run, ready for the loop: read, held out, encoded, packed, with a fingerprint of all of it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.config import Config, TaskConfig, TrainConfig, require
from chinchilla_jax.data.batches import Batches
from chinchilla_jax.data.controls import add_controls
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizer_train import fewer
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.tasks import augment, splits
from chinchilla_jax.tasks.encode import Encoder, Item, check_dropped
from chinchilla_jax.tasks.examples import table
from chinchilla_jax.tasks.kept import own_template
from chinchilla_jax.tasks.kinds.kind import Kind
from chinchilla_jax.tasks.kinds.table import KINDS, kind_of, settled
from chinchilla_jax.tasks.metrics.similarity import code_of
from chinchilla_jax.tasks.pack import Packed, text_bytes
from chinchilla_jax.tasks.read import Found, read
from chinchilla_jax.tasks.records import Record, Tally
from chinchilla_jax.tasks.render import Renderer, sampling
from chinchilla_jax.tasks.template import CHATML, TEMPLATES, Template, named

MOST_CLASS_WEIGHT = 10.0


@dataclass
class TaskData:
    """Examples with all that they need. It has what the loop asks of a `TokenStore`; `path` holds the tokenizer."""

    task: TaskConfig
    path: Path
    tokenizer: BaseTokenizer
    renderer: Renderer
    seq_len: int
    seed: int
    train: list[Record]
    valid: list[Record]
    test: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    added: tuple[int, ...] = ()  # ids of pieces that the base has not
    soft: Sequence[int] = ()  # ids of a soft prompt, which stand before every document

    def __post_init__(self):
        self.encoder = self.new_encoder()
        self.words = augment.vocabulary(self.train) if self.task.replacement else []
        self.known: dict[int, list[Item]] = {}  # items of `valid` and `test` by id
        self.first = self.encoded(self.train)
        if self.train:
            check_dropped(self.encoder.tally, len(self.train), self.seq_len)
        if self.train and self.task.balance:
            self.first = self.balanced(self.first)
        per_token = self.bytes_of(self.first)
        self.packed = Packed(self.items, self.seq_len, self.seed, blocks=self.blocks, bytes_per_token=per_token)

    @property
    def kind(self) -> Kind:
        """The row of the task's kind."""
        return kind_of(self.task.kind)

    def new_encoder(self) -> Encoder:
        """An encoder that has counted nothing yet."""
        how = self.task.labels, self.kind.keeps_start, self.soft
        room = self.seq_len - self.kind.documents * len(self.soft)
        return Encoder(self.kind.encode, self.renderer, self.task, room, *how)

    @property
    def blocks(self) -> bool:
        """Whether batches say which tokens are read in both directions."""
        return self.task.source == "bidirectional"

    def bytes_of(self, items: Sequence[Item]) -> float | None:
        """Bytes of text for each target of some items; None where targets are labels or pairs."""
        parts = [part for item in items for part in item.parts]
        return text_bytes(parts, self.tokenizer.sizes) if self.kind.in_bytes else None

    @property
    def tokenizer_sha256(self) -> str:
        """The tokenizer's hash."""
        return self.tokenizer.sha256

    @property
    def fingerprint(self) -> str:
        """One hash over the records, the template and all that decides what is made of them."""
        told = [self.renderer.template.sha256, self.seq_len, self.task.labels, *self.soft]
        digest = hashlib.sha256(json.dumps(told).encode())
        for part in (self.train, self.valid):
            digest.update(f"{len(part)}\n".encode())
            for record in part:
                # Where the files lie is no part of what is in them.
                values = [value for name, value in vars(record).items() if name not in ("where", "places")]
                digest.update(repr(values).encode("utf-8", "replace"))
        return digest.hexdigest()

    def encoded(self, records: Sequence[Record]) -> list[Item]:
        """The items of some records."""
        if id(records) in self.known:
            return self.known[id(records)]
        return [item for number, record in enumerate(records) for item in self.encoder.items(record, number)]

    def encode_all(self) -> None:
        """Encode what validates and tests, and keep it: a record that cannot be is said before anything is trained."""
        for name, records in (("valid", self.valid), ("test", self.test)):
            self.known[id(records)] = self.judged(records, name) if records else []

    def judged(self, records: Sequence[Record], name: str) -> list[Item]:
        """The items of records that are judged. Raises `UserError` where nothing is left of them."""
        items, where = self.encoded(records), records[0].where.file if records else "the file"
        require(bool(items), f"{where}: no record is left to look at for {name}; see what was dropped")
        return items

    def items(self, epoch: int) -> list[Item]:
        """Those of an epoch of training: the same every time, unless they are augmented."""
        if not self.task.augmented:
            return self.first
        quiet = self.new_encoder()
        found = []
        for number, record in enumerate(self.train):
            draw = np.random.default_rng([self.seed, epoch, number])
            changed = augment.augmented(record, self.task, self.words, draw)
            own = int(draw.integers(2**31))
            encode = sampling(self.tokenizer, self.task.sampling, own) if self.task.sampling else None
            found += quiet.items(changed, number, encode)
        return self.balanced(found) if self.task.balance else found

    def balanced(self, items: list[Item]) -> list[Item]:
        """Items whose label's weight is n / (C n_c), 10 at most."""
        parts = [part for item in items for part in item.parts]
        targets = np.concatenate([part.targets[part.weights > 0] for part in parts])
        counts = np.bincount(targets, minlength=len(self.task.labels))
        weights = np.minimum(len(targets) / (len(counts) * np.maximum(counts, 1)), MOST_CLASS_WEIGHT)
        for part in parts:
            labelled = part.weights > 0
            part.weights[labelled] = weights[part.targets[labelled]]
        return items

    def batches(self, train: TrainConfig) -> Batches:
        """The batch of every step."""
        return Batches(self.packed, train)

    def steps(self, batch_size: int) -> int:
        """Steps of `task.epochs` passes."""
        return max(1, -(-self.packed.rows_of(self.task.epochs) // batch_size))

    def summary(self) -> list[str]:
        """What there is, and what was left out, in a few lines."""
        items = self.first
        tokens = sum(map(len, items))
        trained = sum(float((part.weights > 0).sum()) for item in items for part in item.parts)
        rows = self.packed.rows_of(1)
        lines = [
            f"{len(self.train):,} records to train on, {len(self.valid):,} to validate: {tokens:,} tokens, "
            f"{int(trained):,} {self.kind.counts}, in {rows:,} rows of {self.seq_len} "
            f"({tokens / (rows * self.seq_len):.0%} full)"
        ]
        if self.task.labels:
            lines.append(f"{len(self.task.labels)} labels: {', '.join(self.task.labels):.160}")
        else:
            pieces = self.tokenizer.size - len(self.tokenizer.special)
            own = f"{pieces:,} {self.kind.pieces}" if self.kind.pieces else f"template {self.renderer.template.name}"
            lines.append(own)
        return [*lines, *self.notes, *self.encoder.tally.lines()]

    def describe(self, **more: Any) -> dict[str, Any]:
        """What task.json keeps for whoever uses the run later."""
        template = self.renderer.template
        return {
            "kind": self.task.kind,
            "template": asdict(template),
            "template_sha256": template.sha256,
            "labels": list(self.task.labels),
            "source": self.task.source,
            "opening": self.task.opening,
            **more,
        }


def open_task(
    task: TaskConfig, *, folder: Path | None, scratch: Path, seq_len: int, seed: int, vocab: int = 0, soft: int = 0
) -> TaskData:
    """The examples that `task` names, for the run in `folder`, whose tokenizer and perhaps template are taken.

    A test that is named without anything to train on is judged alone, with what the run knows of its labels.
    A soft prompt of `soft` tokens stands before each; its ids go on behind the table of `vocab` rows.
    Without a run the kind of task makes a tokenizer from the records, in the folder `scratch`; one that lacks control
    pieces of the template gets them there. Raises `UserError` for whatever is wrong with files, fields, labels and
    template.
    """
    require(bool(task.train or task.test), "name the examples with --task.train FILE")
    files = files_of(task)
    asked = KINDS.get(task.kind)
    own = {name: getattr(task, name) for name in ("text", "label", "divider", "conversation", "labels")}
    how = {"kinds": asked.reads if asked else (), **own}
    alone = not files["train"]
    found = read(files["test" if alone else "train"], **how)
    file = found.records[0].where.file
    kind = asked or settled(found.kind, found.records, f"{file} ({found.format})")
    kind.check_few(task)
    how["kinds"] = (found.kind,)
    tally, others = found.tally, []
    if alone:
        require(not kind.pieces, f"{file}: {kind.pieces} are asked for after training on {kind.pieces}; tune first")
        train, valid, test = kind.divide(task, [], [], found.records, seed, tally)
    else:
        for paths in (files["valid"], files["test"]):
            given = read(paths, **how) if paths else None
            others.append(given and given.records)
            tally.add(given.tally if given else Tally())
        train, valid, test = kind.divide(task, found.records, *others, seed, tally)
        if not kind.pieces:  # histories repeat their items, and a user is in every split
            splits.note_repeats(train, valid, tally)
    task = _settled(task, kind, train or test)
    based = folder is not None
    if folder is None:
        folder = kind.catalogue(task, train, [] if any(others) else [*valid, *test], scratch)
    template, tokenizer, notes = template_of(task, kind, found, folder), open_tokenizer(folder), tally.lines()
    if not (based or kind.pieces):
        notes += fewer(tokenizer.size, task.pieces, "task.pieces")
    added: tuple[int, ...] = ()
    if missing := [mark for mark in template.marks if mark not in tokenizer.controls]:
        marked = scratch / "marked"  # a tokenizer that was made from the records lies in `scratch` itself
        marked.mkdir(exist_ok=True)
        folder, tokenizer = marked, add_controls(folder, missing, marked)
        added = tuple(tokenizer.controls[mark] for mark in missing) if based else ()
        notes.append(f"control pieces added to the tokenizer: {', '.join(missing)}")
    renderer = Renderer(template, tokenizer)
    first = max(vocab, tokenizer.size)
    ids = range(first, first + soft)
    return TaskData(task, folder, tokenizer, renderer, seq_len, seed, train, valid, test, notes, added, ids)


def as_tuned(config: Config) -> dict[str, int]:
    """The arguments of `open_task` that follow from a run's config."""
    how = {"seq_len": config.train.seq_len, "seed": config.train.seed}
    return {**how, "vocab": config.model.vocab_size, "soft": config.tune.soft}


def files_of(task: TaskConfig) -> dict[str, tuple[str, ...]]:
    """The files of each split, with those of built-in sets; one that is named alone has its own validation and test.

    Without any to train on there is a test alone.
    """
    if not task.train:
        found = table.expanded(task.test, task.data_dir, print)
        return {"train": (), "valid": (), "test": found.get("test") or found["train"]}
    found = table.expanded(task.train, task.data_dir, print)
    for name in ("valid", "test"):
        given = tuple(table.named(path, task.data_dir, print) for path in getattr(task, name))
        found[name] = given or found.get(name, ())
    return found


def _settled(task: TaskConfig, kind: Kind, train: Sequence[Record]) -> TaskConfig:
    """The task with its kind and its labels. Raises `UserError` for settings that the kind has no use for."""
    labels = task.labels or (kind.names(train) if kind.names else ())
    file = train[0].where.file if train else "the examples"
    require(
        not kind.names or len(labels) > 1,
        f"{file}: one label alone ({', '.join(labels)}), and nothing to tell apart; add records with others to "
        "--task.train, or name the right field with --task.label",
    )
    require(
        not task.conversation or kind.name == "labels",
        f"--task.conversation belongs to --task.kind labels; records of kind {kind.name} stand alone",
    )
    require(
        task.source in kind.sources,
        f"--task.source {task.source}: {kind.name} has {', '.join(kind.sources)}; leave it out, or choose one of these",
    )
    code_of(task.language)  # refused before anything is trained
    task = replace(task, kind=kind.name, labels=labels)
    kind.check(task, train)
    return task


def template_of(task: TaskConfig, kind: Kind, found: Found, run: Path) -> Template:
    """The template that was asked for, else the run's own, else what suits the records."""
    if task.template != "auto":
        return named(task.template)
    if kind.template:
        return TEMPLATES[kind.template]
    own = own_template(run)
    if own is not None:
        return own
    if any(getattr(record, "messages", False) for record in found.records):
        return CHATML
    return TEMPLATES["alpaca" if found.format == "Alpaca" else kind.fallback]
