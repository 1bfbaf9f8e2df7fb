"""Measurements, side by side: ratios that the README and the docs may quote."""
