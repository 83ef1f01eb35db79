"""What the user sees: a live view where there is a terminal, one line a step where there is none, tables at the end."""
