"""One-sentence summaries of abstracts (SciTLDR-A), by a model that was pretrained or imported.

    python -m chinchilla_jax finetune --config tasks/scitldr --from RUN --run-dir runs/scitldr \\
        --task.train SCITLDR/train.jsonl.gz --task.valid SCITLDR/dev.jsonl.gz --task.test SCITLDR/test.jsonl.gz

Not run at full size: six steps from a tiny model of our own. Of several references each ROUGE takes its best. The
first sentence scores 31.29 / 12.33 / 24.98 (ROUGE-1, 2, L) on the test, the best one 49.34 / 26.82 / 40.52.
`--task.train builtin:debian_synopses` needs no files.
"""

from chinchilla_jax.config import Config, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA on abstracts of at most 512 tokens."""
    return Config(
        task=TaskConfig(kind="summary", epochs=3, generate=100, max_new_tokens=64),
        tune=TuneConfig(method="lora"),
        train=TrainConfig(seq_len=512),
    )
