"""A compute budget goes in, a language model comes out: pretraining in JAX, small and whole."""

__version__ = "0.1.0"
