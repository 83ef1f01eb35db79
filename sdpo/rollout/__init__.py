"""The vLLM side: engines that sample, verifiers that judge. Queues stand in brackets.

the caller: the training loop's thread, or the one that generates ahead
  | sample: waits at [outbox], one a call                | verify, reply: hands on completions as they come,
  | load: waits for a Future (with staleness: not)       |   then waits for its [answers], one queue a call
  v                                                      v
EngineFleet (fleet.py)                                 VerifierPool (verify.py): no thread, one lock
  | [inbox]                   ^ [outbox]                 | [owed], one a worker             ^ [answers]
  v                           |                          v                                  |
Supervisor (supervisor.py), thread "fleet":            VerifierActor: answers one question after the other
  waits for engines 20 ms at most, idle at [inbox]
  | [orders]: jobs and weights, in the order they were asked for
  v
Member (member.py), one an engine: what it owes, and whether it lives; never waits
  | order(number, ...)        ^ take(1 s): what has ended; one is always open, so it is the sign of life
  v                           |
EngineActor (fleet.py): a thread a call; take waits for [ended], load and rest until they are obeyed
  | [orders], by number       ^ [ended]
  v                           |
EngineLoop (engine_loop.py), thread "engine": steps VllmEngine (engine.py), obeys orders between two steps;
  new weights wait until it has no work, unless ``rollout.partial``; without work it waits for an order
"""
