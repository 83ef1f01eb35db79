"""``sdpo train -m``: many runs from one command, here or as jobs of a cluster."""
