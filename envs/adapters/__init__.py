"""Environments made by others, behind this package's own protocol: one room each."""
