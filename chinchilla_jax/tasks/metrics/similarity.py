"""How like references texts are: BLEU and chrF by sacrebleu, ROUGE by rouge-score, and how varied they are.

All in percent, as the field writes them. Languages that write no spaces have tokenizers of their own, which the name or
the signature says: `zh` is sacrebleu's for Chinese, and ROUGE of Chinese, which rouge-score's own tokenizer deletes, is
counted in characters and called `rouge1_zh_char`.
"""

import re
from collections.abc import Sequence
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.tasks.metrics.extras import library

HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA, HANGUL = r"\u3040-\u30ff", r"\uac00-\ud7af"
ROUGE = ("rouge1", "rouge2", "rougeL")
TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}  # of sacrebleu; MeCab's need a dictionary
CODES = {"zho": "zh", "chi": "zh", "cmn": "zh", "jpn": "ja", "kor": "ko"}  # of three letters, for the same


def language_of(texts: Sequence[str]) -> str:
    """The script of some texts: zh, ja or ko where a third of the letters are of it, else en."""
    letters = [character for text in texts[:200] for character in text if character.isalpha()]
    share = {
        name: sum(bool(re.match(f"[{script}]", c)) for c in letters) / max(1, len(letters))
        for name, script in (("zh", HAN), ("ja", KANA), ("ko", HANGUL))
    }
    if share["zh"] + share["ja"] > 1 / 3:
        return "ja" if share["ja"] > 0.1 else "zh"
    return "ko" if share["ko"] > 1 / 3 else "en"


def code_of(asked: str) -> str:
    """The code of a language that --task.language names: `zh` of zh-CN or ZH_Hans; "auto" stays."""
    code = re.split("[-_]", asked.lower())[0]
    require(
        code == "auto" or bool(re.fullmatch("[a-z]{2,3}", code)),
        f"--task.language {asked} is no code of two or three letters, such as en or zh; name one, or auto",
    )
    return CODES.get(code, code)


def streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References of each output as sacrebleu wants them: the first of every output, the second, ...; None for none."""
    most = max(map(len, references))
    return [[given[i] if i < len(given) else None for given in references] for i in range(most)]


def translation(
    outputs: Sequence[str], references: Sequence[Sequence[str]], language: str
) -> tuple[dict[str, float], str]:
    """Corpus BLEU and chrF2, and their signatures."""
    sacrebleu = library("sacrebleu")
    bleu = sacrebleu.metrics.BLEU(tokenize=TOKENIZERS.get(language, "13a"))
    chrf = sacrebleu.metrics.CHRF()
    given = streams(references)
    scores = {"bleu": bleu.corpus_score(outputs, given).score, "chrf2": chrf.corpus_score(outputs, given).score}
    return scores, f"BLEU|{bleu.get_signature()} chrF2|{chrf.get_signature()}"


class Characters:
    """A tokenizer for rouge-score: every character that is no blank, as it is."""

    def tokenize(self, text: str) -> list[str]:
        """The characters."""
        return [character for character in text if not character.isspace()]


def rouge(outputs: Sequence[str], references: Sequence[Sequence[str]], language: str) -> dict[str, float]:
    """F1 of ROUGE-1, 2 and L: of several references the best by each, then the mean over outputs.

    English is stemmed (Porter); other languages that use spaces lose what is not a-z or 0-9, as in rouge-score.
    """
    scorer_of, spaced = library("rouge_score.rouge_scorer").RougeScorer, language not in TOKENIZERS
    scorer = scorer_of(ROUGE, use_stemmer=language == "en") if spaced else scorer_of(ROUGE, tokenizer=Characters())
    total = dict.fromkeys(ROUGE, 0.0)
    for output, given in zip(outputs, references, strict=True):
        each = [scorer.score(reference, output) for reference in given]
        for name in ROUGE:
            total[name] += max((score[name].fmeasure for score in each), default=0.0)
    mark = "" if spaced else f"_{language}_char"
    return {f"{name}{mark}": 100 * value / max(1, len(outputs)) for name, value in total.items()}


def units(text: str, language: str) -> list[str]:
    """Words between blanks, or the characters of a language that writes none."""
    return text.split() if language not in TOKENIZERS else Characters().tokenize(text)


def variety(outputs: Sequence[str], language: str) -> dict[str, Any]:
    """distinct-n in percent: different n-grams among all n-grams of all outputs (Li et al. 2016), and mean length."""
    texts, found = [units(text, language) for text in outputs], {}
    for n in (1, 2):
        grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
        found[f"distinct{n}"] = 100 * len(set(grams)) / max(1, len(grams))
    return found | {"length": sum(map(len, texts)) / max(1, len(texts))}
