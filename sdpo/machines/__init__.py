"""The engines, verifiers and learner of a command: as actors on machines, or all in one process."""
