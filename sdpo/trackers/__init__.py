"""Where a run's numbers go besides its own files: one small file a tracker."""
