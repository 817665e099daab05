"""The transformer as functions of a plain parameter tree."""
