"""What a customer wants: 11 intents of airline customers (MultiDoGO), each turn judged behind what was said before it.

    python -m chinchilla_jax finetune --config tasks/customer_intents --from RUN --run-dir runs/intents \\
        --task.train AIRLINE/train.tsv.gz --task.valid AIRLINE/dev.tsv.gz --task.test AIRLINE/test.tsv.gz

13,503 turns to train on, 3,925 to test. To beat: TF-IDF with logistic regression on a turn alone, accuracy 0.8929,
macro-F1 0.8438; with the words of the turns before it 0.9095.

RUN was SmolLM2-135M-Instruct, imported from its GGUF: 666 steps of 2 rows of 192 tokens, about 30 CPU minutes with
validation and test in float32. Test accuracy **0.9164**, macro-F1 0.8726; validation after each pass 0.9018, 0.9156,
0.9120. One seed; with the piece that parts documents before a conversation, not bos, 0.9190 and 0.9177. Turns alone
(`--task.conversation ""`, 803 steps of 2 rows of 128): 0.8851, macro-F1 0.8278. `--task.kind choice
--task.conversation ""` answers with the likeliest label in words instead, which was run for six steps from a tiny model
of our own.
"""

from chinchilla_jax.config import Config, OptimizerConfig, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA on all matrices, and a label head at the end of every turn."""
    return Config(
        task=TaskConfig(kind="labels", text="utterance", label="intent", conversation="conversationId", epochs=3),
        tune=TuneConfig(method="lora", rank=16),
        optimizer=OptimizerConfig(peak_lr=5e-4),
        train=TrainConfig(seq_len=256, batch_size=2),
    )
