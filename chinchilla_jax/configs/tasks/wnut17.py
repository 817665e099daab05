"""Emerging entities of six types in noisy text (WNUT 2017): every word read in both directions.

    python -m chinchilla_jax finetune --config tasks/wnut17 --from RUN --run-dir runs/wnut17 \\
        --task.train WNUT17/train.conll.gz --task.valid WNUT17/dev.conll.gz \\
        --task.test WNUT17/test.conll.gz

3,394 sentences to train on, 1,287 to test. To beat, strict F1: window features with logistic regression 0.0979; the
best of the shared task had 0.4186.

RUN was SmolLM2-135M-Instruct, of which the first 12 layers are kept, read in both directions: 428 steps of 4 rows of
128 tokens, about 13 CPU minutes with validation and test in float32. Test strict F1 **0.4067** (precision 0.570, recall
0.316), 0.4002 without Viterbi; validation 0.473 and 0.501. One seed; another run, in bfloat16 and behind
`<|endoftext|>`, 0.3956.
"""

from chinchilla_jax.config import Config, OptimizerConfig, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA on all matrices, and a head of 13 tags."""
    return Config(
        tune=TuneConfig(method="lora", rank=16, layers=12),
        task=TaskConfig(kind="tags", source="bidirectional", epochs=2),
        optimizer=OptimizerConfig(peak_lr=5e-4),
        train=TrainConfig(batch_size=4, seq_len=256),
    )
