"""Text out: cache, sampling, decoding."""
