"""English to Chinese on short sentences of Tatoeba, from nothing: 8,000 pieces and 12 million parameters.

    python -m chinchilla_jax finetune --config tasks/tatoeba_en_zh --run-dir runs/en-zh \\
        --task.train TATOEBA/train.tsv.gz --task.valid TATOEBA/valid.tsv.gz --task.test TATOEBA/test.tsv.gz

Hours on two cores, minutes on a GPU. Not run at full size: it went through six steps, with beam search and both
scores, on two cores. On the test of 1,000 sentences copying scores 0.03 BLEU (tok zh), the nearest training sentence
28.08. `--task.train builtin:libreoffice_en_zh` needs no files, and `--task.text 1 --task.label 0` turns the direction
round.
"""

from chinchilla_jax.configs.tasks.tatoeba_en_de import config as config  # the same model, steps and beam
