"""Reductions of tokens as sparse matrices: the components that build them."""
