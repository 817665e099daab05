"""A conversation in ids: what was said is kept as the ids it was said in, and never encoded again."""

from collections.abc import Iterator, Sequence
from typing import Any

from chinchilla_jax.config import ModelConfig, require
from chinchilla_jax.data.tokenizer_base import Streamer
from chinchilla_jax.inference.engine import Engine
from chinchilla_jax.inference.sampling import Rows, Sampling
from chinchilla_jax.inference.text import until
from chinchilla_jax.tasks.records import Turn
from chinchilla_jax.tasks.render import Renderer, numbered


class Conversation:
    """Turns of a user and answers of a model, written by a template; an answer ends where its mark is drawn.

    `both` reads what is no answer in both directions, as the model was tuned (`--task.source bidirectional`), and with
    `last` earlier answers too (`--task.turns last`); `ids` are those of the whole conversation so far.
    """

    def __init__(
        self,
        cfg: ModelConfig,
        renderer: Renderer,
        how: Sampling,
        system: str = "",
        *,
        both: bool = False,
        last: bool = False,
        form: str = "float",
    ):
        require(
            renderer.template.several, f"the template {renderer.template.name} knows no second turn; chat needs chatml"
        )
        self.renderer, self.how, self.both, self.last = renderer, how, both, last
        self.engine = Engine(cfg, renderer.tokenizer.size, form=form)
        self.system = [Turn("system", system)] if system else []
        self.ids: list[int] = []
        self.answered: list[bool] = []  # which of them training read in one direction, as an answer

    def ask(self, weights: Any, text: str, new: int, seed: int) -> Iterator[str]:
        """The answer to `text` as it grows, of `new` tokens at most; then both are part of the conversation."""
        prompt = self.prompt(text)
        streamer, made = Streamer(self.renderer.tokenizer), []
        both = [numbered([*self.answered, *[False] * len(prompt)])] if self.both else None
        blocks = self.engine.stream(weights, [[*self.ids, *prompt]], new, Rows.of(self.how, [seed]), both)
        for [gained], _ in until(self.renderer.stops, blocks):
            made += gained
            yield streamer.feed(gained)
        yield streamer.flush()
        self._say(prompt, False)
        self._say([*made, self.renderer.end], True)

    def prompt(self, text: str) -> list[int]:
        """The ids that a user's turn adds, with what asks for the answer."""
        turn = Turn("user", text)
        if not self.ids:
            return self.renderer.prompt([*self.system, turn])
        gap = self.renderer.turn(Turn("assistant", "")).gap
        return [*gap, *self.renderer.turn(turn).ids, *self.renderer.reply]

    def _say(self, ids: Sequence[int], answer: bool) -> None:
        self.ids += ids
        self.answered += [answer and not self.last] * len(ids)
