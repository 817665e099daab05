"""Gradients to updates: one optax chain."""
