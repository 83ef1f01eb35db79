"""A search at test time: strategies, what they remember and spend, and the command that runs them on several machines."""
