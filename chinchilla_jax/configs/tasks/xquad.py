"""Questions answered by a span of a Wikipedia paragraph (XQuAD), English, Chinese or German.

    python -m chinchilla_jax finetune --config tasks/xquad --from RUN --run-dir runs/xquad \\
        --task.train XQUAD/xquad.en.json.gz

1,190 questions about 240 paragraphs; a tenth is held out, paragraph by paragraph. SQuAD's training set, which the
published figures start from, is not here: to beat is the sentence with most words of the question, exact match 0.00,
F1 15.56 (Chinese, by characters, 0.00 and 19.00; German 0.25 and 14.53). A run on other questions is judged on all of
it by `evaluate --run-dir RUN --task --task.test XQUAD/xquad.en.json.gz`.

Not run.
"""

from chinchilla_jax.configs.tasks.cmrc2018 import config as config  # the same method and head
