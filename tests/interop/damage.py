"""Ways to damage a folder of weights, and how its import is refused."""

from tests import runs

KIND = "LlamaForCausalLM"
Q = "model.layers.0.self_attn.q_proj.weight"
W, INDEX = "model.safetensors", "model.safetensors.index.json"


def cut(path, size):
    """Keep the first bytes of a file, or leave out the last ones."""
    path.write_bytes(path.read_bytes()[:size])


def refused(source, tmp_path, word, *flags):
    """Import must end with code 78 and one line, and leave nothing beside the source."""
    before = sorted(path.name for path in tmp_path.iterdir())
    code, said = runs.call("import", str(source), *flags, **{"run-dir": tmp_path / "run"})
    assert code == 78, said
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and word in lines[0] and "Traceback" not in said, said
    assert len(lines[0]) < 2500 and lines[0].isprintable()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
