"""Processors: the user's own tokenizer class, told what the graph takes."""
