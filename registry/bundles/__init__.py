"""A registry in one file or folder."""
