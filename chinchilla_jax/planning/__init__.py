"""From an answer to a run: shapes, rates, meshes, prices, ladders; numpy alone."""
