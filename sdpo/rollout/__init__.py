"""The vLLM side: engines that sample, verifiers that judge."""
