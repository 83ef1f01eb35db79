"""What may be added from outside without changing a file here: a table for each seam, and how a name becomes an object."""
