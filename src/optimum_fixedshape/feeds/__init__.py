"""Random inputs for any graph."""

from .generate import generate_inputs, make_inputs

__all__ = ["generate_inputs", "make_inputs"]
