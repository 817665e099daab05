"""Labels as endings."""

import json

import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.data import open_task
from chinchilla_jax.tasks.kinds import choice


def opened(base, folder, kind: str, records: list[dict], limit: int = 40, **task):
    """Task data of some records, with the tokenizer of a tiny run."""
    file = folder / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = TaskConfig(kind=kind, train=(str(file),), valid=(str(file),), **task)
    return open_task(config, folder=base, scratch=folder, seq_len=limit, seed=0)


def test_a_label_ends_as_it_is_trained(whole_run, tmp_path):
    records = [{"text": "the sea", "label": label} for label in ("wind", "cold stone")]
    for template in ("auto", "chatml"):
        data = opened(whole_run, tmp_path, "choice", records, template=template)
        for item, record in zip(data.first, data.train):
            [part] = item.parts
            trained = part.targets[part.weights > 0].tolist()
            ids = choice.ending(data.renderer, record.labels[0])
            assert trained[: len(ids)] == ids and ids[-1] == data.renderer.end
    with pytest.raises(UserError, match="none of the training set's"):
        opened(whole_run, tmp_path, "choice", records, labels=("wind", "sea"))
