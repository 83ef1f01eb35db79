"""Where a run's numbers go: its own files, and one small file for each tracker."""
