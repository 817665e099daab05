"""From a budget to a run: counts, laws, plans."""
