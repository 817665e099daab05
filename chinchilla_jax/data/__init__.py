"""Text in, tokens out: sources, tokenizer, token store, and batch(seed, step)."""
