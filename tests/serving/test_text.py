"""Stop strings against a search in the whole text."""

import random

from chinchilla_jax.serving.text import Stopper, spelled


def test_no_character_of_a_stop_leaks_and_none_is_lost():
    """Random texts over two letters, so that stops begin everywhere, cut into random pieces."""
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(draw.choices("ab", k=draw.randint(0, 30)))
        stops = ["".join(draw.choices("ab", k=draw.randint(1, 6))) for _ in range(draw.randint(0, 3))]
        stopper, sent, at = Stopper(stops), "", 0
        while at < len(text) and not stopper.stopped:
            size = draw.randint(1, 4)
            sent += stopper.feed(text[at : at + size])
            at += size
            ends = [i for i in range(at) if any(s.startswith(text[i:at]) for s in stops)]
            held = min(ends, default=min(at, len(text)))
            assert stopper.stopped or len(sent) == held, "an end that a stop may begin with was sent, or more was held"
        sent += stopper.flush()
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
        expected = text[: min(found)[1]] if found else text
        assert sent == expected
        assert stopper.stopped == any(stop in text for stop in stops)


def test_tokens_have_names(tokenizer):
    sea = tokenizer.encode("sea")[0]
    byte = tokenizer.encode("海")[0]
    assert spelled(tokenizer, sea) and spelled(tokenizer, byte) == "bytes:\\xe6"
    assert spelled(tokenizer, tokenizer.separator) in tokenizer.controls
