"""``sdpo envs prepare``: published files become the files that an environment reads, checked row by row."""
