"""Does the run still learn? Alarms over what it records, and what an alarm does."""
