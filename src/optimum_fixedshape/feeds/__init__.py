"""Random inputs for any graph."""

from .generate import generate_inputs

__all__ = ["generate_inputs"]
