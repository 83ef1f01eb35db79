"""How many attempts does a strategy need? The measurement of test-time searches."""
