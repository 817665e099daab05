"""What is attacked, what it will cost, and what a reader has to be told; the attacks themselves: test_robustness."""

from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import Config, ModelConfig, TrainConfig
from chinchilla_jax.data.split import Split
from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation import attack, judged, robustness
from chinchilla_jax.evaluation.attack import Attack
from chinchilla_jax.model.adapted import Prompt
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.scaling import counts

LENGTH = 8


def split(windows: int) -> Split:
    """A stream in which every token says in which window it lies; a document every 5 tokens."""
    tokens = np.append(np.repeat(np.arange(windows), LENGTH), 0).astype(np.uint16)
    return Split(tokens, np.arange(0, len(tokens), 5).astype(np.uint64), len(tokens))


@pytest.mark.parametrize("settings, said", [
    ({"tokens": 0}, "--attack-tokens 0"), ({"radii": (0.1, 0.0)}, "--radii 0.1 0.0 must be positive"),
    ({"radii": (float("inf"),)}, "--radii"), ({"typos": (1.0,)}, "--typo-rates 1.0"), ({"restarts": 0}, "--restarts"),
    ({"seed": 2**32}, "--attack-seed"),
])  # fmt: skip
def test_settings_that_make_no_attack_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        Attack(**settings)


@pytest.mark.parametrize("there, tokens, count", [(40, 24, 3), (40, 25, 4), (40, 10**6, 20), (7, 10**6, 3), (1, 99, 1)])
def test_half_of_the_windows_are_attacked_at_most(there, tokens, count):
    assert attack.windows(split(there), LENGTH, tokens) == count


@pytest.mark.parametrize("there, tokens, rows", [(40, 24, 2), (41, 64, 3), (7, 10**6, 2), (40, 10**6, 8)])
def test_windows_are_spread_evenly_and_those_for_the_temperature_lie_between(there, tokens, rows):
    """Each once, even ones here and odd ones there; the last batch is filled up with rows without a weight."""
    text, seen = split(there), []
    for odd in (0, 1):
        batches = list(attack.spread(text, LENGTH, rows, tokens, odd))
        assert {batch.tokens.shape for batch in batches} == {(rows, LENGTH)}
        real = [(row, weights) for b in batches for row, weights in zip(b.tokens, b.weights) if weights.any()]
        assert all(len(set(row.tolist())) == 1 for row, _ in real), "whole windows"
        seen.append([int(row[0]) for row, _ in real])
    count = attack.windows(text, LENGTH, tokens)
    assert all(len(numbers) == len(set(numbers)) == count for numbers in seen)
    assert all(number % 2 == odd for odd in (0, 1) for number in seen[odd])
    gaps = np.diff(seen[0])
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 2


def test_the_price_counts_every_pass(monkeypatch):
    """Forward passes of one radius and one restart by hand; a pass for the gradient in delta is two of them."""
    model = ModelConfig(layers=2, d_model=16, heads=2, head_dim=8, d_ff=32, vocab_size=64)
    config = Config(model=model, train=TrainConfig(seq_len=LENGTH))
    loaded = SimpleNamespace(program=SimpleNamespace(config=config, mesh=SimpleNamespace(devices=np.zeros(1))))
    steps = 5 + 20
    assert robustness.STEPS == (5, 20)
    judging = 1 + (1 + 1 + 2)  # clean, random, fgm, both pgd
    forward = judging + (1 + 1) + 2 + (2 * steps + 2)  # a random point and its loss, fgm, ascents and where they end
    flops = 1000 * forward * counts.flops_per_token(model, LENGTH) / 3
    one = Attack(radii=(0.1,), restarts=1)
    monkeypatch.setattr(attack.devices, "expected_flops_per_s", lambda devices: None)
    assert attack.price(loaded, 1000, one) == f"attacking 1,000 tokens at 1 radii: {flops:.2g} FLOPs"
    monkeypatch.setattr(attack.devices, "expected_flops_per_s", lambda devices: flops / 120)
    assert attack.price(loaded, 1000, one).endswith("FLOPs, about 0:02:00")


def test_a_soft_prompt_is_not_attacked(monkeypatch):
    seen = {}
    monkeypatch.setattr(attack, "Likelihood", lambda *_: SimpleNamespace(rows=2, placed=None))
    monkeypatch.setattr(attack, "faulty", lambda *_: {})
    for name in ("temperature", "unigram"):
        monkeypatch.setattr(judged, name, lambda *_: 1.0)
    monkeypatch.setattr(robustness, "attack_report", lambda *_, **how: seen.update(how) or {"ordered": {}})
    model = ModelConfig(layers=2, d_model=16, heads=2, head_dim=8, d_ff=32, vocab_size=64)
    config = Config(model=model, train=TrainConfig(seq_len=LENGTH))
    program = SimpleNamespace(config=config, mesh=meshes.build(config.mesh))
    table = Prompt(np.zeros((64, 16)), np.zeros((3, 16)))
    loaded = SimpleNamespace(
        program=program, params={"embed": {"table": table}}, tokenizer=SimpleNamespace(special=(0, 1))
    )
    attack.measure(loaded, SimpleNamespace(valid=split(9), train=None), Attack(), print, print)
    assert seen["special"] == (0, 1, 64, 65, 66)


def figures(ordered=True) -> dict:
    """A report of one radius."""
    at = dict.fromkeys(judged.FIGURES, (1.0, 0.5))
    names = ("rand", "fgm", *(f"pgd{count}" for count in robustness.STEPS))
    row = {"clean": at} | {name: {0.1: at | {"loss": (2.0 + n, 0.25)}} for n, name in enumerate(names)}
    losses = {name: {0.1: 2.0 + n} for n, name in enumerate(names)}
    return {"rows": dict.fromkeys(judged.ROWS, row), "tokens": 4096, "area": 0.5, "absolute": {0.1: 0.3},
            "ordered": {0.1: ordered}, "clean": 1.0, **losses}  # fmt: skip


def test_a_masked_gradient_and_missing_typos_are_told():
    assert [line.split(":")[0] for line in attack.notes(figures())] == ["typos are left out"]
    found = figures(ordered=False) | {"typo": {0.0: 1.0}}
    [line] = attack.notes(found)
    assert line.startswith("at radius 0.1 a stronger attack did less") and "masked" in line


def test_the_table_and_the_picture_hold_what_there_is(tmp_path):
    found = figures()
    text = attack.table(found)
    assert "clean 1.0000 ± 0.5000 nats per token over 4,096 tokens; area 0.5000" in text and "typo" not in text
    [line] = [line for line in text.splitlines() if line.split()[:2] == ["0.1", "0.3"]]
    assert line.count("± 0.2500") == 4 and text.count("model + temperature") == 2
    found |= {"typo": {0.0: 1.5, 0.1: 2.5}, "typo_scored": {0.0: 1.0, 0.1: 0.875}, "word": {0.0: 1.5, 0.1: 3.0}}
    found["segmentation"] = 1.75
    text = attack.table(found)
    assert text.splitlines()[-1] == "sampled segmentation: 1.7500 bits per byte"
    assert text.splitlines()[-2].split() == ["0.1", "2.5000", "87.5%", "3.0000"]
    attack.draw(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000
