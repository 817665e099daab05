"""How tokens are named."""

from chinchilla_jax.serving.job import spelled


def test_tokens_have_names(tokenizer):
    sea = tokenizer.encode("sea")[0]
    byte = tokenizer.encode("海")[0]
    assert spelled(tokenizer, sea) and spelled(tokenizer, byte) == "bytes:\\xe6"
    assert spelled(tokenizer, tokenizer.separator) in tokenizer.controls
