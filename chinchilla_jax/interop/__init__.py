"""Models in the formats of others: tables of names and shapes, read in both directions."""
