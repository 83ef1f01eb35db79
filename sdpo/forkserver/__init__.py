"""Processes that have heavy imports behind them and fork Ray's workers: torch is imported once a command, not once a process.

``server.py`` is such a process; ``owner.py`` starts and ends it. ``worker_setup.py`` is what Ray starts in place of a worker: it
asks a server to fork one and stands for it. It starts the worker itself where there is no server, on another machine or beside a
GPU. vllm, deepspeed and ray are named here as text only: a server imports the modules it is told to.
"""
