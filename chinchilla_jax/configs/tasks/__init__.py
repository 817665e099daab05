"""Configs of fine-tuning, a task each; `--config tasks/NAME` finds them."""
