"""Entities in sequences of B-, I- and O tags, and their F1, strict and lenient; as seqeval 1.2.2 defines the two.

strict    an entity is B-X and the I-X that follow; an I- that continues nothing is no entity (mode="strict", IOB2)
lenient   an I- that continues nothing begins an entity of its own, as in conlleval (seqeval's default)
"""

from collections.abc import Callable, Iterable, Sequence

Tags = Sequence[str]
Entity = tuple[str, int, int]  # type, first word, word after the last


def strict(tags: Tags) -> list[Entity]:
    """The entities that begin with B-."""
    found: list[Entity] = []
    open_ = False
    for i, tag in enumerate(tags):
        kind = kind_of(tag)
        if tag[:1] == "B":
            found.append((kind, i, i + 1))
            open_ = True
        elif tag[:1] == "I" and open_ and found[-1][0] == kind:
            found[-1] = (kind, found[-1][1], i + 1)
        else:
            open_ = False
    return found


def lenient(tags: Tags) -> list[Entity]:
    """The entities, also those that begin with I-."""
    return strict(begun(tags))


def begun(tags: Tags) -> list[str]:
    """Tags of which each I- that continues nothing is a B-."""
    found: list[str] = []
    for i, tag in enumerate(tags):
        goes_on = i > 0 and tags[i - 1][:1] in ("B", "I") and kind_of(tags[i - 1]) == kind_of(tag)
        found.append("B" + tag[1:] if tag[:1] == "I" and not goes_on else tag)
    return found


def kind_of(tag: str) -> str:
    """The type in a tag: PER of B-PER."""
    return tag[1:].strip("-") or "_"


def counted(references: Iterable[Tags], outputs: Iterable[Tags], find: Callable) -> dict[str, tuple[int, int, int]]:
    """Type -> (right, in outputs, in references), for every type that occurs."""
    counts: dict[str, list[int]] = {}
    for reference, output in zip(references, outputs, strict=True):
        there, said = set(find(reference)), set(find(output))
        for place, entities in enumerate((there & said, said, there)):
            for kind, _, _ in entities:
                counts.setdefault(kind, [0, 0, 0])[place] += 1
    return {kind: tuple(count) for kind, count in sorted(counts.items())}


def scores(right: int, said: int, there: int) -> tuple[float, float, float]:
    """Precision, recall, F1; 0 where there is nothing to divide by."""
    precision, recall = right / said if said else 0.0, right / there if there else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def micro(counts: dict[str, tuple[int, int, int]]) -> tuple[float, float, float]:
    """Precision, recall, F1 of all types together."""
    return scores(*(sum(count[i] for count in counts.values()) for i in range(3)))


def macro(counts: dict[str, tuple[int, int, int]]) -> tuple[float, float, float]:
    """The means over types; 0 where there are none."""
    each = [scores(*count) for count in counts.values()]
    return tuple(sum(values) / len(each) for values in zip(*each)) if each else (0.0, 0.0, 0.0)
