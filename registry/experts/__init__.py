"""How experts become known."""
