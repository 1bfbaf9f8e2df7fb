"""What a graph is for: ranked guesses, each with its evidence."""

from .detect import detect_task
from .guesses import TaskGuess, TaskGuesses

__all__ = ["TaskGuess", "TaskGuesses", "detect_task"]
