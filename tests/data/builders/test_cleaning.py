"""Documents of several formats as paragraphs, each by examples."""

from chinchilla_jax.data.builders import cleaning


def test_html_gives_paragraphs_without_scripts_and_navigation():
    page = (
        "<html><head><title>t</title><style>x</style></head><body><nav>menu</nav><h1>Big &amp; small</h1>"
        "<p>One <b>bold</b>\n word.</p><script>var a;</script><pre>a\n  b</pre><ul><li>x<li>y</ul>tail</body>"
    )
    assert cleaning.html(page) == ["Big & small", "One bold word.", "a\n  b", "x", "y", "tail"]


def test_pod_keeps_headings_and_the_text_of_codes():
    text = "=pod\n\n=head1 NAME\n\nUse C<print> and B<I<both>>, or C<< a->b >>, C<aE<gt>b>.\n\n  code();\n\n=cut\n"
    assert [p for p in cleaning.pod(text) if p] == ["NAME", "Use print and both, or a->b, a>b.", "  code();"]


def test_dictionary_entries_lose_pronunciation_and_tags():
    text = 'Affect \\Af*fect"\\, v. t.\n   1. To act upon.\n      [1913 Webster]\n\nAffable \\x\\ a.\n   Kind. [PJC]\n'
    assert cleaning.dictionary(text) == ["Affect, v. t.\n   1. To act upon.", "Affable a.\n   Kind."]


def test_descriptions_become_paragraphs():
    text = "Package: a\nDescription-md5: 0\nDescription-en: short one\n Long text\n .\n more\n\nPackage: b\n"
    assert list(cleaning.descriptions(text)) == ["short one\nLong text\n\nmore"]
