"""Which expert to start from: the model of past results, trials, and the verdict."""
