"""Questions about fairy tales, answered in words of the model's own (FairytaleQA).

    python -m chinchilla_jax finetune --config tasks/fairytaleqa --from RUN --run-dir runs/fairytaleqa \\
        --task.train FAIRYTALEQA/train.jsonl.gz --task.valid FAIRYTALEQA/val.jsonl.gz \\
        --task.test FAIRYTALEQA/test.jsonl.gz

8,548 questions to train on, 1,007 to test. To beat: the sentence with most words of the question, SQuAD's EM 0.30 and
F1 20.49.

RUN was SmolLM2-135M, imported from its GGUF, with `--model.dtype bfloat16` on a CPU with AMX: a fifth of a pass, 180
steps of 4 rows of 768 tokens, 35 CPU minutes, and 24 for the 1,007 answers of the test: F1 **40.95**, ROUGE-L 41.92.
One seed. SmolLM2-135M-Instruct in float32 without AMX, half as long (`--task.epochs 0.1`, 90 steps in about 45 minutes
of a core): F1 38.10, ROUGE-L 39.74 on 300 of the test drawn at random, validation 32.8.
"""

from chinchilla_jax.config import Config, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA; a section that is too long loses its beginning."""
    return Config(
        task=TaskConfig(kind="answer", epochs=0.2, generate=100, max_new_tokens=32),
        tune=TuneConfig(method="lora"),
        train=TrainConfig(seq_len=768, batch_size=4),
    )
