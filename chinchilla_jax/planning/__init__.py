"""From an answer to a run: shapes, rates, meshes, prices, ladders; numpy alone."""

# Settings that every plan decides by itself: what is typed is said not to be followed, and checked against nothing.
ALONE = ("train.steps", "train.microbatches")
