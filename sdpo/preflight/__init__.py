"""Can this run work at all? ``checks.py`` finds out before anything starts, ``proofs.py`` remembers what it found."""
