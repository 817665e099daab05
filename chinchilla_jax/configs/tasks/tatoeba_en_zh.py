"""English to Chinese on short sentences of Tatoeba, from nothing: 4,000 pieces and 10.5 million parameters.

    python -m chinchilla_jax finetune --config tasks/tatoeba_en_zh --run-dir runs/en-zh \\
        --task.train TATOEBA/train.tsv.gz --task.valid TATOEBA/valid.tsv.gz --task.test TATOEBA/test.tsv.gz

Five of the six passes over 24,960 pairs (`--task.epochs 5 --optimizer.warmup-steps 200`), 1,216 steps in about 40 CPU
minutes of one core in float32: test BLEU 27.78 (tok zh), chrF2 24.35, one seed. That is what the nearest training
sentence has (28.08), since many sentences of the test are nearly in the training set; copying has 0.03.
`--task.train builtin:libreoffice_en_zh` needs no files, and `--task.text 1 --task.label 0` turns the direction round.
"""

from chinchilla_jax.configs.tasks.tatoeba_en_de import config as config  # the same model, steps and beam
