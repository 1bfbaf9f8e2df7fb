"""Random inputs for any graph."""

from .generate import generate_inputs, make_inputs, outline_of

__all__ = ["generate_inputs", "make_inputs", "outline_of"]
