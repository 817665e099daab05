"""Titles of Chinese abstracts (CSL), ROUGE counted in characters.

    python -m chinchilla_jax finetune --config tasks/csl_title --from RUN --run-dir runs/csl-title \\
        --task.train CSL/dev.tsv.gz --task.test CSL/test.tsv.gz

Not run at full size: six steps from a tiny model of our own. The official training set is large and not needed for a
first run; its first 20 characters already score 35.68 / 25.10 / 31.70 as a title (rouge1_zh_char, 2, L).
"""

from chinchilla_jax.config import Config, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA; the second column is the abstract, the third its title."""
    return Config(
        task=TaskConfig(kind="summary", text="1", label="2", language="zh", epochs=3, generate=100, max_new_tokens=48),
        tune=TuneConfig(method="lora"),
        train=TrainConfig(seq_len=512),
    )
