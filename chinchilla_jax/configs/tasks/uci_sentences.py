"""Sentiment of sentences from reviews (UCI): positive or negative.

    for seed in 0 1 2; do
      python -m chinchilla_jax finetune --config tasks/uci_sentences --from RUN --run-dir runs/uci-$seed \\
          --task.train UCI_SENTENCES/train.tsv --task.test UCI_SENTENCES/test.tsv --train.seed $seed
    done

2,404 sentences, a tenth of them held out, and 572 to test. To beat: TF-IDF with logistic regression, accuracy 0.827;
SmolLM2-135M untouched, by comparing two words, 0.851.

From SmolLM2-135M: 101 steps, 48 minutes on two cores that many jobs shared. Test accuracy 0.939 with the first seed;
the other two were not run at full size.
"""

from chinchilla_jax.config import Config, OptimizerConfig, TaskConfig, TuneConfig


def config() -> Config:
    """LoRA on all matrices, and a label head."""
    return Config(
        tune=TuneConfig(method="lora", rank=16),
        task=TaskConfig(kind="labels", epochs=3),
        optimizer=OptimizerConfig(peak_lr=3e-4, weight_decay=0.0),
    )
