"""Models: optimum's classes, whose graphs may have any shape baked in."""
