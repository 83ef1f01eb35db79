"""What a learner's process imports, for a server that forks such processes. Nothing of Ray: a child loads it itself."""

from importlib import import_module

from sdpo.learner.importing import import_deepspeed

import_deepspeed()
for _module in ("peft", "sdpo.learner.engine"):
    import_module(_module)
