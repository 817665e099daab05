"""Answers against references: exact match and F1 as the scripts of SQuAD 2.0 and of CMRC 2018 define them.

SQuAD 1.1's script differs from 2.0's where a text has no words once it is normalised: two such texts have F1 0 there.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from chinchilla_jax.tasks.metrics.entities import scores
from chinchilla_jax.tasks.metrics.extras import library

ARTICLES = re.compile(r"\b(a|an|the)\b")
ASCII = str.maketrans("", "", string.punctuation)
# CMRC's own list; its "……" is two characters and so never met.
MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")  # noqa: RUF001
HAN = re.compile("[\u4e00-\u9fa5]")
PLAIN = re.compile(r"[\w\s]*")


def normalised(text: str) -> str:
    """SQuAD: lower case, without ASCII punctuation, without articles, blanks joined; in this order."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(ASCII)).split())


def squad_exact(output: str, reference: str) -> float:
    """1 where both are the same once normalised."""
    return float(normalised(output) == normalised(reference))


def squad_f1(output: str, reference: str) -> float:
    """F1 of the bags of words; of two texts of which one has none: whether the other has none either."""
    said, there = normalised(output).split(), normalised(reference).split()
    if not said or not there:
        return float(said == there)
    return scores(sum((Counter(said) & Counter(there)).values()), len(said), len(there))[2]


def cmrc_exact(output: str, reference: str) -> float:
    """1 where both are the same in lower case and without the listed punctuation."""
    said, there = ("".join(c for c in text.lower().strip() if c not in MARKS) for text in (output, reference))
    return float(said == there)


def cmrc_f1(output: str, reference: str) -> float:
    """F1 of the longest common *substring* of characters and Latin words; 0 where both are empty, as in the script."""
    said, there = segments(output), segments(reference)
    return scores(common(said, there), len(said), len(there))[2]


def segments(text: str) -> list[str]:
    """Every Han character by itself, what stands between them as words; the listed punctuation is left out."""
    found, run = [], ""
    for character in text.lower().strip():
        if character in MARKS:
            continue
        if HAN.match(character):
            found += [*latin(run), character]
            run = ""
        else:
            run += character
    return [*found, *latin(run)]


def latin(run: str) -> list[str]:
    """The words of a stretch without Han characters, as NLTK cuts them (without its division into sentences)."""
    if PLAIN.fullmatch(run) and not CONTRACTED.search(run):
        return run.split()
    return library("nltk.tokenize.destructive").NLTKWordTokenizer().tokenize(run)


CONTRACTED = re.compile(r"\b(can|d|gim|gon|got|lem|more|wan)(not|ye|me|na|ta)\b|'t(is|was)\b|\bwhaddya|\bwhatcha")


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest stretch that both have."""
    longest, last = 0, [0] * (len(b) + 1)
    for one in a:
        row = [0] * (len(b) + 1)
        for j, other in enumerate(b):
            if one == other:
                row[j + 1] = last[j] + 1
                longest = max(longest, row[j + 1])
        last = row
    return longest


STYLES: dict[str, tuple[Callable, Callable]] = {"squad": (squad_exact, squad_f1), "cmrc": (cmrc_exact, cmrc_f1)}


def best(style: str, output: str, references: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1), each the best over the references; where there is none, both are whether there is no output.

    SQuAD's references that normalise to nothing are left out where another is left, as in the script of 2.0. CMRC's
    script knows no question without an answer.
    """
    exact, f1 = STYLES[style]
    kept = [reference for reference in references if normalised(reference)] if style == "squad" else references
    if not kept:
        return (exact(output, ""),) * 2
    return max(exact(output, r) for r in kept), max(f1(output, r) for r in kept)
