"""Data sets of our own, as TFDS builders."""
