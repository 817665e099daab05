"""What a source gives: documents, the units that they are read in, and notes for whoever asked."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

Say = Callable[[str], None]


@dataclass(frozen=True)
class Document:
    """A text, the source it came from and its name there; `split` is train or valid if the source says so."""

    text: str
    source: str
    key: str
    split: str = ""


@dataclass
class Notes:
    """What a reader found beside documents."""

    skipped: Counter = field(default_factory=Counter)  # kind of what is left out -> how many
    said: Counter = field(default_factory=Counter)  # what a reader should know -> how many it concerns
    records: int = 0  # documents that --data.field was looked up for


@dataclass
class Source(Notes):
    """One entry of --data.sources: parts to read, its licence, and a state that changes when its content does.

    A unit is a part that one process reads: a plain dict with the `kind` of its reader, about how many `bytes` of text
    it holds, and whatever that reader needs.
    """

    name: str = ""
    licence: str = ""
    units: list[dict] = field(default_factory=list)
    state: str = ""
