"""Hydra's config groups. Each YAML begins with its schema from ``sdpo.config`` and holds only deviations from it."""
