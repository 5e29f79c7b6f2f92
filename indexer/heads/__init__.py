"""Linear models on features, and their scores."""
