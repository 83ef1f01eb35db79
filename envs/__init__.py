"""Environments: where tasks come from and who verifies the answers. Imported as ``sdpo.envs``; never imports torch."""
