"""Which rows of a table of embeddings are near."""
