"""``sdpo plan``: where everything of a run goes, what memory it takes, what does not fit, and how it scales. Starts nothing."""
