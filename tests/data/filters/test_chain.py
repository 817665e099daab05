"""Filters one behind the other, and the account of what each left out."""

import random

import numpy as np

from chinchilla_jax.config import DataConfig
from chinchilla_jax.config.corpus import QualityConfig, RepetitionConfig
from chinchilla_jax.data.documents import Document
from chinchilla_jax.data.filters import chain, contamination, language
from chinchilla_jax.data.filters.words import folded_words

EXAM = "one two three four five six seven eight nine ten eleven twelve thirteen"
CONFIG = DataConfig(clean=("controls",), quality=QualityConfig(on=True, min_words=3), decontaminate=("exam.txt",))


def documents(texts) -> list[Document]:
    """Of one source."""
    return [Document(text, "s", str(number)) for number, text in enumerate(texts)]


def made(config=CONFIG) -> tuple[chain.Chain, chain.Account]:
    """A chain against the exam, and an empty account."""
    found = chain.Chain(config, folded_words([EXAM]).grams(13)[1])
    return found, chain.Account(found.names)


def test_stages_follow_each_other_and_a_later_one_sees_what_is_left():
    filters, account = made()
    good, short = "the sea and that wind\x07", "the and"
    left = filters(documents([good, short, f"{EXAM} the and", good.strip("\x07")]), account)
    assert [d.text for d in left] == ["the sea and that wind"] * 2 and [d.key for d in left] == ["0", "3"]
    assert filters.names == ("clean", "gopher", "decontaminate") == tuple(s["stage"] for s in filters.describe())
    counts = {name: (entry["in"][0], entry["out"][0]) for name, entry in account.values.items()}
    assert counts == {"clean": (4, 4), "gopher": (4, 3), "decontaminate": (3, 2)}
    clean = account.values["clean"]
    assert clean["in"][1] - clean["out"][1] == 1 and clean["rules"]["changed"]["documents"] == 1
    assert filters(documents([short]), account) == [] and account.values["decontaminate"]["in"][0] == 3


def test_nothing_is_done_unless_asked():
    filters, account = chain.Chain(DataConfig()), chain.Account(())
    texts = documents(["x\x00", ""])
    assert filters(texts, account) is texts and filters.names == () and filters.describe() == []
    on = made(DataConfig(repetition=RepetitionConfig(on=True)))[0].describe()
    assert list(on[0]["settings"]) == ["repetition"], "only the settings that hold"


def test_an_account_of_parts_is_that_of_the_whole_in_any_order():
    texts = ["the and " * n + "sea #" * (n % 7) for n in range(40)]
    filters, whole = made()
    filters(documents(texts), whole)
    assert all(len(rule["examples"]) <= 3 for entry in whole.values.values() for rule in entry["rules"].values())
    for seed in range(3):
        shuffled = random.Random(seed).sample(texts, len(texts))
        total = chain.Account(filters.names)
        for start in range(0, 40, 9):
            part = chain.Account(filters.names)
            filters(documents(shuffled[start : start + 9]), part)
            total.merge(part.values)
        assert total.values == whole.values


def test_a_language_is_another_one_or_not_sure(monkeypatch):
    said = {"a": ("en", 0.9), "b": ("en", 0.5), "c": ("zh", 0.99)}
    monkeypatch.setattr(language, "identify", said.get)
    other, unsure = chain.languages(["a", "b", "c"], DataConfig(languages=("en",), language_sure=0.8))
    assert other[2].tolist() == [False, False, True] and unsure[2].tolist() == [False, True, False]


def test_runs_of_words_are_counted_by_document():
    finder = contamination.Contamination(np.unique(folded_words([EXAM + " fourteen"]).grams(13)[1]), 13)
    ((_, hits, broken),) = chain.contaminated(["", EXAM, f"x {EXAM} fourteen y"], finder)
    assert hits.tolist() == [0, 1, 2] and broken.tolist() == [False, True, True]
