"""Searches as they are run: which tasks, on which machines, by which process."""
