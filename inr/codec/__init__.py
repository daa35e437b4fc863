"""The `.inr` file: container, quantisation, entropy coding. `docs/FORMAT.md` is its law."""
