"""Supervised training that teaches a model to use hindsight: a small model that cannot read an error message is no teacher."""
