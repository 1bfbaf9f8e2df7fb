"""Fuzzing that is guided by coverage; see ``make fuzz``."""
