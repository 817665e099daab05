"""The stages that look at one document at a time, in order, and an account of what each left out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chinchilla_jax.config import DataConfig, to_dict
from chinchilla_jax.data.documents import Document
from chinchilla_jax.data.filters import cleaning, language, quality, repetition
from chinchilla_jax.data.filters.contamination import Contamination

EXAMPLES = 3  # of each rule
SHOWN = 200  # characters of an example
Rule = tuple[str, np.ndarray, np.ndarray]  # name, value (D,), whether the document breaks it (D,)


@dataclass(frozen=True)
class Stage:
    """A filter: `rules` gives a verdict on each of a list of texts, under settings and a version."""

    name: str
    version: int
    settings: dict[str, Any]
    rules: Callable[[list[str]], Iterator[Rule]]


class Account:
    """What a stage left out: documents and bytes before and after, and of each rule a count and a few examples.

    Examples are those of the smallest hash, so that they do not depend on the order of documents. Plain values that
    can be added up over parts of a corpus (`merge`).
    """

    def __init__(self, stages: tuple[str, ...]):
        self.values: dict[str, dict] = {name: {"in": [0, 0], "out": [0, 0], "rules": {}} for name in stages}

    def add(self, stage: str, documents: list[Document], rules: list[Rule], kept: np.ndarray) -> None:
        """Enter a verdict on some documents."""
        import xxhash

        entry, sizes = self.values[stage], np.array([len(document.text) for document in documents], np.int64)
        for key, some in (("in", slice(None)), ("out", kept)):
            entry[key][0] += len(sizes[some])
            entry[key][1] += int(sizes[some].sum())
        for name, value, broken in rules:
            rule = entry["rules"].setdefault(name, {"documents": 0, "examples": []})
            found = np.flatnonzero(broken).tolist()
            rule["documents"] += len(found)
            own = [[xxhash.xxh3_64_intdigest(documents[n].text.encode("utf-8", "replace")), float(value[n]),
                    documents[n].text[:SHOWN]] for n in found]  # fmt: skip
            rule["examples"] = sorted([*rule["examples"], *own])[:EXAMPLES]

    def merge(self, other: dict[str, dict]) -> None:
        """Add the values of another account."""
        for name, theirs in other.items():
            entry = self.values[name]
            for key in ("in", "out"):
                entry[key] = [a + b for a, b in zip(entry[key], theirs[key])]
            for rule, found in theirs["rules"].items():
                own = entry["rules"].setdefault(rule, {"documents": 0, "examples": []})
                own["documents"] += found["documents"]
                examples = {tuple(example) for example in [*own["examples"], *found["examples"]]}
                own["examples"] = [list(example) for example in sorted(examples)][:EXAMPLES]


class Chain:
    """All stages that the settings ask for; `contamination` are the hashes that documents must not share."""

    def __init__(self, config: DataConfig, contamination: np.ndarray | None = None):
        self.clean = [cleaning.STEPS[name] for name in cleaning.STEPS if name in config.clean]
        self.stages = list(stages(config, contamination))
        self.names = (("clean",) if self.clean else ()) + tuple(stage.name for stage in self.stages)

    def __call__(self, documents: list[Document], account: Account) -> list[Document]:
        """The documents that are left, cleaned."""
        if self.clean:
            documents = self.cleaned(documents, account)
        for stage in self.stages:
            if documents:
                rules = list(stage.rules([document.text for document in documents]))
                kept = ~np.logical_or.reduce([broken for _, _, broken in rules])
                account.add(stage.name, documents, rules, kept)
                documents = [document for document, keep in zip(documents, kept.tolist()) if keep]
        return documents

    def cleaned(self, documents: list[Document], account: Account) -> list[Document]:
        """All documents, cleaned; those that change are the examples."""
        after = []
        for document in documents:
            text = document.text
            for step in self.clean:
                text = step(text)
            after.append(document if text == document.text else replace(document, text=text))
        sizes = np.array([len(a.text) - len(b.text) for a, b in zip(documents, after)])
        changed = np.array([a is not b for a, b in zip(documents, after)], bool)
        account.add("clean", documents, [("changed", sizes, changed)], np.ones(len(documents), bool))
        account.values["clean"]["out"][1] -= int(sizes.sum())
        return after

    def describe(self) -> list[dict]:
        """Name, version and settings of each stage."""
        clean = [{"stage": "clean", "version": cleaning.VERSION}] if self.clean else []
        return clean + [{"stage": s.name, "version": s.version, "settings": s.settings} for s in self.stages]


def stages(config: DataConfig, contamination: np.ndarray | None) -> Iterator[Stage]:
    """The filters that the settings ask for."""
    if config.languages:
        settings = {"languages": list(config.languages), "sure": config.language_sure}
        yield Stage("language", 1, settings, lambda texts: languages(texts, config))
    if config.quality.on or config.repetition.on:
        on = {name: to_dict(getattr(config, name)) for name in ("quality", "repetition") if getattr(config, name).on}
        yield Stage("gopher", 1, on, lambda texts: gopher(texts, config))
    if contamination is not None:
        finder = Contamination(contamination, config.decontaminate_words)
        settings = {"files": list(config.decontaminate), "words": config.decontaminate_words}
        yield Stage("decontaminate", 1, settings, lambda texts: contaminated(texts, finder))


def languages(texts: list[str], config: DataConfig) -> Iterator[Rule]:
    """Documents in another language than those asked for, and those of which that is not sure."""
    found = [language.identify(text) for text in texts]
    sure = np.array([probability for _, probability in found])
    wanted = np.array([code in config.languages for code, _ in found], bool)
    yield "other_language", sure, ~wanted
    yield "unsure", sure, wanted & (sure < config.language_sure)


def gopher(texts: list[str], config: DataConfig) -> Iterator[Rule]:
    """The rules of quality and of repetition, which look at the same words and lines."""
    text, words, lines = quality.measure(texts)
    if config.quality.on:
        yield from quality.rules(text, words, lines, config.quality)
    if config.repetition.on:
        yield from repetition.rules(words, lines, config.repetition)


def contaminated(texts: list[str], finder: Contamination) -> Iterator[Rule]:
    """Documents with a run of words of the evaluation sets."""
    hits = finder.hits(texts)
    yield "shared_run_of_words", hits, hits > 0
