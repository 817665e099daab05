"""Laws of the loss in parameters and tokens: read runs, fit, doubt, answer, compare; numpy and scipy alone."""
