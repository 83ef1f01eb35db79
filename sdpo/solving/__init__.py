"""The parts of a search at test time: strategies, what they remember, what they spend, and what is kept of them."""
