"""From tokens to text that may be sent: whole characters, and nothing of a stop string."""

from collections.abc import Sequence

from chinchilla_jax.data.tokenizer_base import BaseTokenizer, Streamer
from chinchilla_jax.inference.scheduler import Token


class Stopper:
    """Text up to the stop string that is complete first. Held back is the longest end that one may begin with."""

    def __init__(self, stops: Sequence[str]):
        self.stops, self.held, self.stopped = [stop for stop in stops if stop], "", False

    def feed(self, text: str) -> str:
        """What may be sent of the text so far and `text`."""
        if self.stopped:
            return ""
        whole = self.held + text
        found = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in self.stops if stop in whole]
        if found:
            self.stopped, self.held = True, ""
            return whole[: min(found)[1]]
        longest = max(map(len, self.stops), default=1) - 1
        for size in range(min(longest, len(whole)), 0, -1):
            if any(stop.startswith(whole[-size:]) for stop in self.stops):
                self.held = whole[-size:]
                return whole[:-size]
        self.held = ""
        return whole

    def flush(self) -> str:
        """What was held back, at the end of a text that did not stop."""
        held, self.held = self.held, ""
        return held


class Writer:
    """The text of one choice; `feed` and `flush` give what may be sent."""

    def __init__(self, tokenizer: BaseTokenizer, stops: Sequence[str]):
        self.streamer, self.stopper = Streamer(tokenizer), Stopper(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self.stopper.stopped

    def feed(self, token: Token) -> str:
        """The text that became certain with a token."""
        return self.stopper.feed(self.streamer.feed([token.id]))

    def flush(self) -> str:
        """The rest of a text that ended."""
        return self.stopper.feed(self.streamer.flush()) + self.stopper.flush()


def spelled(tokenizer: BaseTokenizer, id: int) -> str:
    """A token as log-probabilities name it: its text, or its bytes where they are no text by themselves."""
    piece = tokenizer.pieces[id] if id < tokenizer.size else b""
    try:
        return piece.decode() or names(tokenizer).get(id, f"<{id}>")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def names(tokenizer: BaseTokenizer) -> dict[int, str]:
    """id -> name of the control pieces."""
    return {id: name for name, id in tokenizer.controls.items()}
