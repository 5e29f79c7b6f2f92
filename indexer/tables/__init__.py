"""Rows and columns of table files: how they are written, which columns are meant, and what labels say."""
