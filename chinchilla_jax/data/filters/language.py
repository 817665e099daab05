"""Which language a text is in, by py3langid (an optional package)."""

import functools

from chinchilla_jax.errors import UserError

HEAD = 2000  # characters that are looked at
MIDDLE = 500


@functools.lru_cache(1)
def _identifier():
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise UserError("--data.languages needs another package: pip install py3langid") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def check(languages: tuple[str, ...]) -> None:
    """Refuse what the package does not know."""
    known = {str(label) for label in _identifier().labels}
    for name in languages:
        if name not in known:
            raise UserError(f"--data.languages {name}: not a code of ISO 639-1 that py3langid knows; such as en or zh")


def identify(text: str) -> tuple[str, float]:
    """The code of the language (ISO 639-1) and how sure that is."""
    if len(text) > HEAD:
        start = (len(text) - HEAD) // 2
        text = text[:MIDDLE] + text[start : start + HEAD - MIDDLE]
    code, sure = _identifier().classify(text)
    return str(code), float(sure)
