"""The machines of a run: where Ray runs on them, who gets which part of them, and what is said where one is missing."""
