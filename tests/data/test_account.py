"""What a manifest says of the stages of `prepare`, as numbers that follow from each other."""

from chinchilla_jax.data import account

RULES = {"words": {"documents": 2, "examples": [[1, 3.0, "too short"]]}, "hashes": {"documents": 0, "examples": []}}
MANIFEST = {
    "sources": [{"name": "en", "documents": 50}, {"name": "zh", "documents": 10}],
    "empty": 2,
    "stages": [
        {"stage": "clean", "version": 1, "in": [101, 990], "out": [101, 980], "rules": {}},
        {"stage": "gopher", "version": 1, "in": [101, 980], "out": [98, 900], "rules": RULES},
        {"stage": "duplicates", "version": 1, "dropped": 6, "rules": {}},
        {"stage": "near", "version": 1, "dropped": 30, "clusters": 10, "rules": {}},
    ],
}


def test_every_stage_begins_with_what_the_one_before_left():
    found = account.stages(MANIFEST)
    assert found == [
        ("clean", 101, 101),
        ("gopher", 101, 98),
        ("empty", 98, 96),
        ("duplicates", 96, 90),
        ("near", 90, 60),
    ]
    assert all(left == begun for (_, _, left), (_, begun, _) in zip(found, found[1:]))  # noqa: RUF007


def test_rules_that_nothing_broke_are_not_shown():
    assert account.rules(MANIFEST, "gopher") == [("words", RULES["words"])] and account.rules(MANIFEST, "none") == []
    lines = [line.split() for line in account.table(MANIFEST)]
    assert ["gopher", "98", "3", "2.97%"] in lines and ["words", "2"] in lines
    assert not any("hashes" in line for line in lines)


def test_names_that_no_font_and_no_encoding_has(tmp_path, recwarn):
    name = "texts/\u540d\udcff"
    source = {"name": name, "documents": 2, "tokens": 9, "bytes": 20}
    splits = {split: {"sources": [source]} for split in ("train", "valid")}
    page, picture = account.write(MANIFEST | {"splits": splits}, tmp_path)
    assert account.shown(name) == "??" and "texts/\u540d\\udcff" in page.read_text("utf-8")
    assert picture.stat().st_size > 0 and not recwarn.list


def test_a_store_without_stages_has_a_table_too():
    """Those of the first version, and text of which nothing is left: no division by zero."""
    lines = account.table({"sources": [{"documents": 0}], "empty": 0})
    assert lines[1:] == [f"{'empty':<34}{0:>14}{0:>12}{'0.00%':>9}"]
