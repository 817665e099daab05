"""A conversation in ids: what was served is what training writes, turn by turn."""

import numpy as np
import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.data.controls import add_controls
from chinchilla_jax.errors import UserError
from chinchilla_jax.inference.chat import Conversation
from chinchilla_jax.inference.engine import stretches
from chinchilla_jax.inference.sampling import Sampling
from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.table import KINDS
from chinchilla_jax.tasks.records import Dialogue, Turn, Where
from chinchilla_jax.tasks.render import Renderer
from chinchilla_jax.tasks.template import CHATML, PLAIN
from tests import tiny


class Scripted:
    """An engine that says what it is told, a token a block, and remembers what it was asked."""

    def __init__(self, answers):
        self.answers, self.asked, self.blocks = list(answers), [], []

    def stream(self, weights, prompts, new, rows, blocks=None):
        self.asked.append(list(prompts[0]))
        self.blocks.append(blocks)
        for token in self.answers.pop(0)[:new]:
            yield np.array([[token]])


@pytest.fixture(scope="module")
def renderer(tiny_store, tmp_path_factory):
    return Renderer(CHATML, add_controls(tiny_store, list(CHATML.marks), tmp_path_factory.mktemp("chat")))


@pytest.mark.parametrize("both, turns_of", [(False, "all"), (True, "all"), (True, "last")])
def test_served_ids_are_those_of_training(renderer, both, turns_of):
    """Read in both directions is what training read so: with --task.turns last earlier answers too."""
    encode, end = renderer.tokenizer.encode, renderer.end
    turns = [Turn("system", "be brief")]
    for question, answer in (("the sea", "old songs"), ("wind\n<|im_end|>", "naïve 海")):
        turns += [Turn("user", question), Turn("assistant", answer)]
    answers = [[*encode("old songs"), end, 5, 5], [*encode("naïve 海"), end]]
    talk = Conversation(tiny.MODERN, renderer, Sampling(0.0), "be brief", both=both, last=turns_of == "last")
    talk.engine = Scripted(answers)
    said = ["".join(talk.ask(None, turn.content, 99, 0)) for turn in turns if turn.role == "user"]
    assert said == ["old songs", "naïve 海"], "it stops by itself"
    task = TaskConfig(source="bidirectional" if both else "causal", turns=turns_of)
    [item] = Encoder(KINDS["chat"].encode, renderer, task, 999).items(Dialogue(Where("f", 1, 1), tuple(turns)), 0)
    [part] = item.parts
    assert part.tokens[: len(talk.ids)].tolist() == talk.ids and len(part.tokens) - len(talk.ids) <= 2
    for prompt, blocks in zip(talk.engine.asked, talk.engine.blocks):
        assert part.tokens[: len(prompt)].tolist() == prompt
        assert blocks is None if not both else blocks[0] == part.blocks[: len(prompt)].tolist()


def test_an_answer_without_an_end_gets_one(renderer):
    talk = Conversation(tiny.MODERN, renderer, Sampling(0.0))
    talk.engine = Scripted([renderer.tokenizer.encode("the sea and the wind")])
    list(talk.ask(None, "the", 2, 0))
    assert talk.ids[-1] == renderer.end and talk.answered[-3:] == [True] * 3


def test_a_question_that_failed_is_no_part_of_the_conversation(renderer):
    talk = Conversation(tiny.MODERN, renderer, Sampling(0.0))
    talk.engine = Scripted([None, [5, renderer.end], [5, renderer.end]])
    with pytest.raises(TypeError):
        list(talk.ask(None, "the sea", 4, 0))
    for _ in range(2):
        list(talk.ask(None, "old songs", 4, 0))
    failed, first, second = talk.engine.asked
    assert failed != first == renderer.prompt([Turn("user", "old songs")]) == second[: len(first)]


def test_a_template_without_turns_is_refused(renderer):
    with pytest.raises(UserError, match="chatml"):
        Conversation(tiny.MODERN, Renderer(PLAIN, renderer.tokenizer), Sampling(0.0))


def test_stretches():
    assert stretches([1, 1, 0, 2]) == [(0, 2), (2, 3), (3, 4)] and stretches([1]) == [(0, 1)]
