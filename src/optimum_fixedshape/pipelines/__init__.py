"""Pipelines: items become batches, and batches become answers."""
