"""Dynamic graphs made a folder of fixed ones."""

from .folder import pin_shapes

__all__ = ["pin_shapes"]
