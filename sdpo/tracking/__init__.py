"""Trackers, to which a run's numbers go: its own files, and one small module for each tracker."""
