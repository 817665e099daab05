"""Plain text with a loss on every token."""

from chinchilla_jax.tasks.records import Document
from tests.tasks.made import HERE, encoder, examples


def test_a_text_has_a_loss_everywhere_and_is_cut_into_windows(chat, tokenizer):
    record = Document(HERE, "the sea and the wind and the cold stone " * 10)
    whole = [tokenizer.separator, *tokenizer.encode(record.text), tokenizer.separator]
    parts = examples(encoder(chat, 16, kind="text"), record)
    assert [int(i) for part in parts for i in part.targets] == whole[1:] and all(part.weights.all() for part in parts)
    assert max(map(len, parts)) == 16
