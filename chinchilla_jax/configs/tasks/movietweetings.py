"""Which film a user of MovieTweetings rates next, from nothing: the vocabulary is the films of the 5-core.

    python -m chinchilla_jax finetune --config tasks/movietweetings --run-dir runs/movietweetings \\
        --task.train MOVIETWEETINGS/ratings.inter.gz

0.22 million parameters, 60 passes over 39,627 events of 2,958 users: three minutes on two shared cores. The test with
the best step, all 1,883 films ranked and those seen removed: HR@10 0.2234 ± 0.0053, NDCG@10 0.1266 ± 0.0010 (seeds 0 to
2); the most popular films have 0.1521 and 0.0756, item-kNN on the last five 0.1947 and 0.1068. With seen films kept:
0.1958 and 0.1022. `--task.train builtin:movielens` is MovieLens-100K.
"""

from chinchilla_jax.config import CheckpointConfig, Config, ModelConfig, OptimizerConfig, TaskConfig, TrainConfig


def config() -> Config:
    """A small causal transformer over items."""
    return Config(
        model=ModelConfig(layers=2, d_model=64, heads=2, head_dim=32, d_ff=256, mlp="gelu", dropout=0.3),
        task=TaskConfig(kind="items", epochs=60, deletion=0.2),
        optimizer=OptimizerConfig(peak_lr=2e-3, warmup_steps=50, weight_decay=0.3, b2=0.98),
        train=TrainConfig(seq_len=64, batch_size=32, eval_every=100, log_every=20),
        checkpoint=CheckpointConfig(every=100, keep=1),
    )
