"""What lies in a run's folder: its files, what is kept of unfinished steps, its logs, and who watches over its progress."""
