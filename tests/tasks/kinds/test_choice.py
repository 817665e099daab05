"""Labels as endings."""

from types import SimpleNamespace

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.kinds import choice
from tests.tasks.made import of_kind


def test_a_label_ends_as_it_is_trained(whole_run, tmp_path):
    records = [{"text": "the sea", "label": label} for label in ("wind", "cold stone")]
    for template in ("auto", "chatml"):
        data = of_kind(whole_run, tmp_path, "choice", records, template=template)
        for item, record in zip(data.first, data.train):
            [part] = item.parts
            trained = part.targets[part.weights > 0].tolist()
            ids = choice.ending(data.renderer, record.labels[0])
            assert trained[: len(ids)] == ids and ids[-1] == data.renderer.end
    asked = SimpleNamespace(data=data, records=[*data.train, *data.train], most=2, chooser=len)
    asked.records.sort(key=lambda record: record.labels)
    assert {record.labels for record in choice.Choices(asked).records} == {("wind",), ("cold stone",)}, (
        "of a sorted file"
    )
    with pytest.raises(UserError, match="none of the training set's"):
        of_kind(whole_run, tmp_path, "choice", records, labels=("wind", "sea"))
