"""Sequential recommendation: the pieces of the vocabulary are items, and a model says which comes next.

Training is ordinary next-token prediction over histories, which is SASRec with the whole softmax as its loss
(Klenitskiy and Vasilev 2023). Validation ranks all items for every user who is asked, once
without those he has had and once with.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import TaskConfig, require
from chinchilla_jax.data import tokenizer_items
from chinchilla_jax.model import transformer
from chinchilla_jax.tasks import splits
from chinchilla_jax.tasks.encode import Encoder, Example
from chinchilla_jax.tasks.kinds.kind import Examination, Figures, Kind, Rows
from chinchilla_jax.tasks.metrics import ranking
from chinchilla_jax.tasks.records import History, Tally
from chinchilla_jax.tasks.render import Encode

UNSEEN = "items that the model does not have, left out of histories"
MISSED = "users asked for an item that the model does not have: counted as missed"
UNTRAINED = "items that no training history has, ranked all the same"
SHOWN = 10  # items of a history, and of an answer, in predictions.jsonl
KEPT, POPULAR = "_kept", "popular_"


def divide(
    task: TaskConfig, train: list[History], valid: list[History] | None, test: list[History] | None, seed: int,
    tally: Tally,
) -> splits.Split:  # fmt: skip
    """The core of the training file, split by itself; or it and the histories of other files, asked for their ends."""
    kept = splits.core(train, task.core)
    where = train[0].where
    require(bool(kept), f"{where.file}: no user and item have {task.core} events each; set --task.core 0, or get more")
    gone = sum(len(h.items) for h in train) - sum(len(h.items) for h in kept)
    if gone:
        tally.note(f"events outside of the {task.core}-core left out", where, gone)
    if valid is None and test is None:
        if task.split == "time":
            found = splits.by_time(kept, task.valid_fraction, tally)
        else:
            found = splits.leave_one_out(kept, tally)
        require(all(found), f"{where.file}: too few events to train on, to validate and to test; get more")
    else:
        found = splits.beside(kept, valid, test, tally)
    held = {item for history in found[0] for item in history.items}
    cold = {item for history in kept for item in history.items} - held
    if cold:
        tally.note(UNTRAINED, where, len(cold))
    return found


def catalogue(task: TaskConfig, train: Sequence[History], held: Sequence[History], folder: Path) -> Path:
    """A folder with the tokenizer of all items, in the order of their names; numbers by their value."""
    names = {item for record in [*train, *held] for item in record.items}
    tokenizer_items.write(sorted(names, key=lambda name: (not name.isdecimal(), len(name.lstrip("0")), name)), folder)
    return folder


def known(encoder: Encoder, record: History) -> list[int]:
    """The ids of a history; -1 for an item that is not in the catalogue."""
    tokenizer = encoder.renderer.tokenizer
    require(
        isinstance(tokenizer, tokenizer_items.ItemTokenizer),
        f"{record.where.file}: items are asked for, and the model to start from has pieces of text; leave --from out, "
        "or name a run that was tuned on items",
    )
    return [-1 if (number := tokenizer.known(item)) is None else number for item in record.items]


def encode(encoder: Encoder, record: History, encode: Encode) -> Iterator[tuple[Example, ...]]:
    """Windows in which every item is predicted once from what was before it; of a user who is asked the last one."""
    ids, limit = known(encoder, record), encoder.limit
    missing = ids[:-1].count(-1) if record.asked else ids.count(-1)
    if missing:
        encoder.tally.note(UNSEEN, record.where, missing)
    if record.asked and ids[-1] < 0:
        encoder.tally.note(MISSED, record.where)
        return
    targets = [i for i in ids if i >= 0]
    tokens = [encoder.renderer.tokenizer.separator, *targets[:-1]]
    due, end = len(targets) - record.asked * (len(targets) - 1), len(targets)
    while due > 0:
        start = max(0, end - limit)
        weights = np.zeros(end - start, np.float32)
        weights[-min(due, end - start if start == 0 or record.asked else limit // 2 or 1) :] = 1
        yield (Example(np.array(tokens[start:end], np.int32), np.array(targets[start:end], np.int32), weights),)
        due -= int(weights.sum())
        end -= int(weights.sum())


class Ranking:
    """HR@10, NDCG@10 and MRR over all items, of the model and of how popular items are."""

    def __init__(self, examination: Examination):
        self.examination, self.data = examination, examination.data
        cfg = examination.program.config.model
        rows = [row for held in examination.held for row in held]
        most = max(map(len, rows), default=1)  # users in a row

        def score(params, batch):
            hidden_BLD = transformer.apply(params, batch, cfg)
            _, at_BK = jax.lax.top_k(batch.weights, most)  # of equal ones the first comes first
            hidden_BKD = jnp.take_along_axis(hidden_BLD, at_BK[..., None], axis=1)
            B, K, D = hidden_BKD.shape
            return transformer.logits(params, hidden_BKD.reshape(B * K, D)).reshape(B, K, -1)

        self.score = examination.compiled(score)
        self.popular_I = self.popularity()

    def popularity(self) -> np.ndarray:
        """Counts of the items in what is known of every user (I,), by number from 0."""
        own = {record.user: record.items for record in self.data.train}
        own |= {record.user: record.items[:-1] for record in self.examination.records}
        histories = [self.numbers(items) for items in own.values()]
        return ranking.popularity(histories, self.data.tokenizer.size - 1)

    def numbers(self, items: Sequence[str]) -> list[int]:
        """Numbers of the items that the model has: their ids without the one before every history."""
        found = map(self.data.tokenizer.known, items)
        return [i - 1 for i in found if i is not None]

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        records, found = self.examination.records, []
        asked = {item.record for rows in self.examination.held for row in rows for item in row}
        for held, _, logits_BKV in self.examination.over(self.score, params, poll):
            for row, items in enumerate(held):
                if items:
                    scores_UI = logits_BKV[row, : len(items), 1 : self.data.tokenizer.size].astype(np.float32)
                    found += self.ranked([records[item.record] for item in items], scores_UI)
        missed = [self.missed(record) for number, record in enumerate(records) if number not in asked]
        rows = [row for _, row in found] + [row for _, row in missed]
        rank_UN = np.array([ranks for ranks, _ in [*found, *missed]])
        figures = ranking.figures(rank_UN[:, 0]) | ranking.figures(rank_UN[:, 1], KEPT)
        popular = ranking.figures(rank_UN[:, 2])
        return figures | {f"{POPULAR}{name}": value for name, value in popular.items()}, rows

    def ranked(self, records: Sequence[History], scores_UI: np.ndarray) -> list[tuple[list[float], dict[str, Any]]]:
        """([rank without seen items, with them, by popularity], line of predictions.jsonl) of some users."""
        before = [self.numbers(record.items[:-1]) for record in records]
        target_U = np.array([self.numbers(record.items[-1:])[0] for record in records])
        popular_UI = np.broadcast_to(self.popular_I, scores_UI.shape)
        ranks = [
            ranking.ranks(scores_UI, target_U, before), ranking.ranks(scores_UI, target_U),
            ranking.ranks(popular_UI, target_U, before),
        ]  # fmt: skip
        names, found = self.data.tokenizer, []
        for row, record in enumerate(records):
            left_I = scores_UI[row].copy()
            left_I[before[row]] = -np.inf
            left_I[target_U[row]] = scores_UI[row, target_U[row]]  # the target stays, also where it was seen before
            best = np.argsort(-left_I, kind="stable")[:SHOWN] + 1
            line = self.line(record, names.decode(best.tolist()), ranks[0][row])
            found.append(([float(rank[row]) for rank in ranks], line))
        return found

    def missed(self, record: History) -> tuple[list[float], dict[str, Any]]:
        """The same of a user who is asked for an item that the model does not have."""
        return [np.inf] * 3, self.line(record, "", np.inf)

    def line(self, record: History, output: str, rank: float) -> dict[str, Any]:
        """A line of predictions.jsonl; an infinite rank is null."""
        shown = " ".join(record.items[:-1][-SHOWN:])
        return {
            "record": str(record.where), "user": record.user, "input": shown, "output": output,
            "reference": record.items[-1], "rank": int(rank) if np.isfinite(rank) else None,
        }  # fmt: skip


FIGURES = {
    "loss": False,
    **{f"{mark}{name}{kept}": True for mark, kept in (("", ""), ("", KEPT), (POPULAR, "")) for name in ranking.NAMES},
}
KIND = Kind(
    "items", encode, FIGURES, metric=ranking.NAMES[1], judge=Ranking, reads=("items",), divide=divide,
    catalogue=catalogue, counts="items to predict", pieces="items", template="plain", generates=True,
    sources=("causal",), columns=("user", "rank"), follows=("core", "split", "deletion"),
)  # fmt: skip
