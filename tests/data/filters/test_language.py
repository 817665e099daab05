"""What py3langid is asked, and what is said where it is not there."""

import sys
from types import SimpleNamespace

import pytest

from chinchilla_jax.data.filters import language
from chinchilla_jax.errors import UserError


@pytest.fixture
def asked(monkeypatch):
    """The texts that a stand-in for the package was asked about."""
    seen = []
    made = SimpleNamespace(labels=["en", "zh"], classify=lambda text: seen.append(text) or ("en", 0.75))
    monkeypatch.setattr(language, "_identifier", lambda: made)
    return seen


def test_beginning_and_middle_of_a_long_text_are_looked_at(asked):
    text = "".join(chr(0x4E00 + n) for n in range(10_001))
    assert language.identify(text) == ("en", 0.75) and language.identify(text[:2000]) == ("en", 0.75)
    assert asked[0][:500] == text[:500] and asked[0][500:] == text[4000:5500] and asked[1] == text[:2000]


def test_a_code_that_is_none_is_named(asked):
    language.check(("en", "zh"))
    with pytest.raises(UserError, match=r"--data\.languages english: not a code"):
        language.check(("en", "english"))


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    language._identifier.cache_clear()
    with pytest.raises(UserError, match="pip install py3langid"):
        language.identify("the sea")


def test_the_package_itself():
    pytest.importorskip("py3langid")
    language.check(("en", "zh"))
    for text, code in (("The wind carries old songs over the water.", "en"), ("海风吹过石头,人们在睡觉。", "zh")):
        found, sure = language.identify(text)
        assert found == code and 0.5 < sure <= 1
