"""Text from models and environments, made fit for a terminal."""


def printable(text: str) -> str:
    """The text without control characters: a completion must not drive the terminal."""
    return "".join(char for char in text if char in "\n\t" or char.isprintable())
