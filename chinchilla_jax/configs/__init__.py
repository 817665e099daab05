"""Configs that come with the package; `--config NAME` finds them from any folder."""
