"""Customer service: the replies of dialogues about bookings (SGD), or Chinese ones (CrossWOZ), from nothing.

    python -m chinchilla_jax finetune --config tasks/customer_dialogue --run-dir runs/service \\
        --task.train SGD/train.jsonl.gz --task.valid SGD/valid.jsonl.gz --task.test SGD/test.jsonl.gz

To beat: the reply of the nearest context scores BLEU 6.14, chrF2 21.36 and distinct-2 0.347 on the test (CrossWOZ
12.52, 11.80, 0.109). `--task.train builtin:shakespeare_scenes` needs no files.

1.7 million parameters, one pass over SGD's 4,000 dialogues in 9 CPU minutes: over all replies of the test BLEU 7.11,
chrF2 23.52, distinct-2 0.187. One seed. The last replies alone are farewells: there the model has BLEU 20.0, and "Have
a great day." for all of them 21.4. A model that was pretrained is tuned with `--from RUN --task.kind chat
--task.template chatml` in place of --config, which was not run on these dialogues.
"""

from chinchilla_jax.config import CheckpointConfig, Config, ModelConfig, OptimizerConfig, TaskConfig, TrainConfig


def config() -> Config:
    """ChatML; every reply trains, and validation asks for some of all."""
    return Config(
        model=ModelConfig(layers=3, d_model=192, heads=3, head_dim=64, d_ff=512, dropout=0.1),
        task=TaskConfig(kind="chat", template="chatml", pieces=2000, epochs=1, generate=50, max_new_tokens=64),
        optimizer=OptimizerConfig(peak_lr=2e-3, warmup_steps=50),
        train=TrainConfig(seq_len=512, batch_size=8),
        checkpoint=CheckpointConfig(every=200),
    )
