"""Customer service: the replies of dialogues about bookings (SGD), or Chinese ones (CrossWOZ), turn by turn.

    python -m chinchilla_jax finetune --config tasks/customer_dialogue --from RUN --run-dir runs/service \\
        --task.train SGD/train.jsonl.gz --task.valid SGD/valid.jsonl.gz --task.test SGD/test.jsonl.gz

To beat: the reply of the nearest context scores BLEU 6.14, chrF2 21.36 and distinct-2 0.347 on the test (CrossWOZ
12.52, 11.80, 0.109). `--task.train builtin:shakespeare_scenes` needs no files.

LoRA was not run. A model from nothing (`--tune.method off --tune.rank 0 --task.pieces 2000 --model.layers 3
--model.d-model 192 --model.heads 3 --model.head-dim 64 --model.d-ff 512 --model.dropout 0.1 --train.batch-size 8
--optimizer.peak-lr 2e-3 --optimizer.warmup-steps 50` in place of --from), one pass over SGD's 4,000 dialogues in 9 CPU
minutes: over all replies of the test BLEU 7.11, chrF2 23.52, distinct-2 0.187. The last replies alone are farewells:
there the model has BLEU 20.0, and "Have a great day." for all of them 21.4.
"""

from chinchilla_jax.config import Config, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA and ChatML; every reply trains, and validation asks for some of all."""
    return Config(
        task=TaskConfig(kind="chat", template="chatml", epochs=1, generate=50, max_new_tokens=64),
        tune=TuneConfig(method="lora"),
        train=TrainConfig(seq_len=512),
    )
