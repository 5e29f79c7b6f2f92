"""Many embeddings, or parts of one, by processes or a Ray cluster."""
