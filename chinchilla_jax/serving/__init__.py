"""A run directory behind an OpenAI-compatible HTTP interface."""
