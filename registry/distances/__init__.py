"""Distances between embeddings, in plain numpy."""
