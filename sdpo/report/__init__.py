"""Pictures of runs; reads records, imports no engine."""
