"""Two laws as a user compares them: a table, a pure object with --json, and what does not compare."""

import pytest

from tests import runs
from tests.commands.conftest import refused


def test_a_law_beside_itself_needs_as_much_compute():
    found = runs.ask("compare", "massivetext", "massivetext", flops=1e22)
    (row,) = found["rows"]
    assert row["speed_up"] == pytest.approx(1) and row["flops"] == 1e22 and not found["warnings"]
    assert found["next"].endswith("-m chinchilla_jax plan --law massivetext --flops 1e21")


def test_the_table_says_how_sure_and_what_lies_beyond_the_runs():
    code, said = runs.call("compare", "massivetext", "epoch-published", "--flops", "1e20", "1e26", level=0.5)
    lines = said.splitlines()
    assert code == 0 and lines[0].startswith("massivetext over epoch-published, 50% interval, losses in nats")
    assert [line.split()[0] for line in lines[2:4]] == ["1e+20", "1e+26"]
    assert "unknown" in lines[2] and "beyond the runs" not in lines[2], "a law in print has no replicates"
    assert lines[3].endswith("beyond the runs")


def test_mistakes_are_one_line(capsys):
    assert "--floor is for tables" in refused(capsys, "compare", "massivetext", "massivetext", "--floor", "1.7")
    assert "--level 3" in refused(capsys, "compare", "epoch-exact", "hoffmann-tex", "--level", "3")
    assert "--flops inf" in refused(capsys, "compare", "epoch-exact", "hoffmann-tex", "--flops", "inf")
    assert "did you mean massivetext" in refused(capsys, "compare", "massivetex", "massivetext")
    assert "the following arguments are required: B" in refused(capsys, "compare", "massivetext")
