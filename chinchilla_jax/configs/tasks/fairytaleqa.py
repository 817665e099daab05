"""Questions about fairy tales, answered in words of the model's own (FairytaleQA).

    python -m chinchilla_jax finetune --config tasks/fairytaleqa --from RUN --run-dir runs/fairytaleqa \\
        --task.train FAIRYTALEQA/train.jsonl.gz --task.valid FAIRYTALEQA/val.jsonl.gz \\
        --task.test FAIRYTALEQA/test.jsonl.gz

Not run at full size: six steps from a tiny model of our own. The sentence with most words of the question has SQuAD's
EM 0.30 and F1 20.49 on the test.
"""

from chinchilla_jax.config import Config, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA; a section that is too long loses its beginning."""
    return Config(
        task=TaskConfig(kind="answer", epochs=2, generate=100, max_new_tokens=32),
        tune=TuneConfig(method="lora"),
        train=TrainConfig(seq_len=768),
    )
