"""Translation: source and target, decoded greedily or by beam, scored by sacrebleu's corpus BLEU and chrF2."""

from collections.abc import Sequence

from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.chat import OF_ANY, Answers, wrong
from chinchilla_jax.tasks.kinds.kind import AUGMENTS, WRITES, Examination, Figures, Kind
from chinchilla_jax.tasks.metrics import similarity


def score(outputs: Sequence[str], given: Sequence[Sequence[str]], language: str) -> Figures:
    """BLEU and chrF2 of all of them together."""
    return similarity.translation(outputs, given, language)[0]


class Translations(Answers):
    """Answers whose scores are noted with their signature, which the report has beside them."""

    def __init__(self, examination: Examination):
        super().__init__(examination, score)
        if self.asked:
            how = similarity.translation([""] * len(self.asked), self.references, self.language)[1]
            self.data.notes.append(f"BLEU and chrF2 on {len(self.asked)} pairs of {examination.name}: `{how}`")


KIND = Kind(
    "translation", Encoder.dialogue, OF_ANY | {"bleu": True, "chrf2": True}, judge=Translations,
    reads=("chat",), in_bytes=True, keeps_template=True, generates=True,
    columns=("stopped", "references"), fallback="lines", follows=("sampling", *AUGMENTS, *WRITES), wrong=wrong,
)  # fmt: skip
