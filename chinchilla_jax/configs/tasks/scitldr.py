"""One-sentence summaries of abstracts (SciTLDR-A), by a model that was pretrained or imported.

    python -m chinchilla_jax finetune --config tasks/scitldr --from RUN --run-dir runs/scitldr \\
        --task.train SCITLDR/train.jsonl.gz --task.valid SCITLDR/dev.jsonl.gz --task.test SCITLDR/test.jsonl.gz

1,992 abstracts to train on, 618 to test. Of several references each ROUGE takes its best. To beat: the first
sentence, 31.29 / 12.33 / 24.98 (ROUGE-1, 2, L); the best one of an abstract has 49.34 / 26.82 / 40.52.

RUN was SmolLM2-135M, imported from its GGUF, with `--model.dtype bfloat16` on a CPU with AMX, one pass: 270 steps of
4 rows of 512 tokens, 40 CPU minutes, and 17 for the 618 answers of the test: **42.63 / 20.74 / 35.48**, 99 % of the
answers of validation ended by themselves. One seed. SmolLM2-135M-Instruct the same way in float32 without AMX, about 65
minutes of a core and 13 for validation: 42.62 / 21.57 / 35.45 on 200 of the test drawn at random.
`--task.train builtin:debian_synopses` needs no files.
"""

from chinchilla_jax.config import Config, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA on abstracts of at most 512 tokens."""
    return Config(
        task=TaskConfig(kind="summary", epochs=1, generate=100, max_new_tokens=64),
        tune=TuneConfig(method="lora"),
        train=TrainConfig(seq_len=512, batch_size=4),
    )
