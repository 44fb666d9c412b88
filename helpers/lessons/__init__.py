"""Code of single lessons."""
