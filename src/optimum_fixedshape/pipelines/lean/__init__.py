"""The lean path: from items to answers without torch and without a Python loop of transformers between them."""
