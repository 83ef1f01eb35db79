"""Which commands are there? Ours stand here; an installed package adds one by an entry point of the group ``sdpo.commands``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from sdpo.commands.command import QUIET, Command
from sdpo.plugins.seam import describe

GROUP = "sdpo.commands"
BUILT_IN: Mapping[str, Command] = {
    "train": Command(
        usage="""\
  sdpo train [KEY=VALUE ...]            train; e.g. sdpo train algorithm=grpo env=chemistry num_steps=20
      --dry-run                         resolve and check the config, start nothing
      --quiet                           one line a step instead of the live view, and one every half minute of what takes longer;
                                        also of the other commands with a live view
      -m algorithm=sdpo,grpo seed=1,2   each point of a sweep, here or, with hydra/launcher=slurm, as Slurm jobs: docs/cluster.md
""",
        run="sdpo.commands.train:run_training",
        composes="train_config",
        flags={"--dry-run": "dry_run=true", "--quiet": "tracking.quiet=true"},
        instead={"-m": "sdpo.sweep.command:run_sweep"},
        starts_actors=True,
        stands="the last checkpoint stands",
        config="train",
        keys=(
            "name",
            "num_steps",
            "seed",
            "model.path",
            "batch.num_tasks",
            "batch.group_size",
            "sampling.max_prompt_tokens",
            "sampling.max_response_tokens",
            "learner.lr",
            "evaluation.every",
        ),
    ),
    "plan": Command(
        usage="""\
  sdpo plan [KEY=VALUE ...]             where that run would go, what memory it takes, what does not fit: docs/planning.md
      cluster.nodes=1 cluster.gpus_per_node=8 gpu_gib=80 scale=RUN
""",
        run="sdpo.planning.command:run_plan",
        config="train",
        keys=(
            "model.path",
            "cluster.nodes",
            "cluster.gpus_per_node",
            "cluster.placement",
            "learner.num_ranks",
            "learner.zero_stage",
            "rollout.num_engines",
            "rollout.tensor_parallel_size",
            "batch.micro_batch_tokens",
            "sampling.max_response_tokens",
        ),
        options=(
            ("gpu_gib=NUMBER", "memory of a GPU, GiB"),
            ("host_gib=NUMBER", "memory of a machine, GiB"),
            ("scale=RUN", "a run folder; its times say how long a step takes on 1 to 64 nodes"),
            ("network_gb_s=NUMBER", "between nodes, GB/s, for scale"),
            ("latency_us=NUMBER", "of that network, microseconds"),
        ),
    ),
    "evaluate": Command(
        usage="""\
  sdpo evaluate [KEY=VALUE ...]         held-out success; e.g. sdpo evaluate checkpoint=runs/NAME/checkpoints/step_000012 k=8
      lift=true                         and how much better it answers when it is shown a hint
""",
        run="sdpo.commands.evaluate:run_evaluation",
        composes="evaluate_config",
        flags=QUIET,
        starts_actors=True,
        config="evaluate",
        keys=(
            "checkpoint",
            "model.path",
            "k",
            "num_tasks",
            "temperature",
            "top_p",
            "lift",
            "seed",
            "sampling.max_response_tokens",
            "quiet",
        ),
    ),
    "solve": Command(
        usage="""\
  sdpo solve env=code task=ID [KEY=VALUE ...]       one hard task, or a file with one, until it is solved: docs/test-time.md
      tasks=all split=heldout           each of many; strategy=sdpo|best_of_k|multi_turn|sdpo_multi_turn
""",
        run="sdpo.solving.command:run_solve",
        composes="solve_config",
        gets_words=True,
        flags=QUIET,
        starts_actors=True,
        stands="the same command continues the search",
        config="solve",
        keys=(
            "task",
            "tasks",
            "split",
            "strategy",
            "budget.attempts",
            "batch.group_size",
            "sampling.max_response_tokens",
            "in_process",
            "num_workers",
            "name",
        ),
    ),
    "discovery": Command(
        usage="""\
  sdpo discovery env=code [KEY=VALUE ...]           strategies compared on hard tasks, at equal budgets
""",
        run="sdpo.discovery.command:run_discovery",
        composes="discovery_config",
        gets_words=True,
        flags=QUIET,
        starts_actors=True,
        stands="the same command continues",
        config="discovery",
        keys=(
            "strategies",
            "tasks",
            "num_seeds",
            "hard.num_tasks",
            "hard.max_rate",
            "budget.attempts",
            "batch.group_size",
            "in_process",
            "num_workers",
            "name",
        ),
    ),
    "warmup": Command(
        usage="""\
  sdpo warmup to=DIR [KEY=VALUE ...]    teach a model to use hindsight; then: sdpo train model.path=DIR
""",
        run="sdpo.warmup.command:run_warmup",
        composes="warmup_config",
        flags=QUIET,
        starts_actors=True,
        config="warmup",
        keys=(
            "to",
            "model.path",
            "num_updates",
            "lr",
            "kl_weight",
            "pairs.num_tasks",
            "pairs.num_attempts",
            "sampling.max_response_tokens",
            "evaluation.num_tasks",
            "seed",
        ),
    ),
    "export": Command(
        usage="""\
  sdpo export checkpoint=FOLDER to=DIR  a plain Hugging Face folder; weights=average for the teacher's
""",
        run="sdpo.commands.export:run_export",
        composes="export_config",
        config="export",
        keys=("checkpoint", "to", "weights", "dtype"),
    ),
    "replay": Command(
        usage="""\
  sdpo replay batch=FILE                an update that a run could not take, through the learner alone
""",
        run="sdpo.commands.replay:run_replay",
        composes="replay_config",
        config="replay",
        keys=("batch", "checkpoint", "num_threads"),
    ),
    "launch": Command(
        usage="""\
  sdpo launch render cluster=kubernetes [KEY=VALUE ...]         a KubeRay manifest of that run: launch/kubernetes/README.md
      kind=RayJob|RayCluster to=FILE
""",
        run="sdpo.kubernetes.render:run_launch",
        config="train",
        words=("cluster=kubernetes",),
        keys=(
            "cluster.image",
            "cluster.nodes",
            "cluster.gpus_per_node",
            "cluster.cpus_per_node",
            "cluster.memory_gib_per_node",
            "cluster.namespace",
            "cluster.claim",
            "cluster.mount",
            "cluster.secrets",
            "cluster.node_selector",
        ),
        options=(
            ("kind=KIND", "what is written: a RayJob, or a RayCluster to which jobs are submitted"),
            ("to=FILE", "where it is written; else to the screen"),
        ),
    ),
    "view": Command(
        usage="""\
  sdpo view RUN [RUN2]                  a page over a run folder, or two: which tokens did hindsight change?
      host=127.0.0.1 port=8770 open=true
""",
        run="sdpo.report.view:run_view",
        options=(
            ("host=ADDRESS", "where it is served; 0.0.0.0: at every address of this machine"),
            ("port=NUMBER", "the first port that is tried; 0: any that is free"),
            ("open=true", "open a browser"),
        ),
    ),
    "report": Command(
        usage="""\
  sdpo report RUN [RUN ...]             run folders as one HTML file: curves, tables, times, alarms, attempts; to=report.html
""",
        run="sdpo.report.report:run_report",
        options=(("to=FILE", "the file that is written"),),
    ),
    "profile": Command(
        usage="""\
  sdpo profile RUN                      where a step's time went, and what to change
""",
        run="sdpo.report.profile:run_profile",
    ),
    "compare": Command(
        usage="""\
  sdpo compare RUN [RUN ...]            one table over seeds: success, lift, tokens/s, hours; e.g. sdpo compare runs/*
""",
        run="sdpo.report.compare:run_compare",
    ),
    "envs": Command(
        usage="""\
  sdpo envs list                        the environments that are installed
  sdpo envs show NAME                   its options, splits and sizes; NAME: installed, module:Class or file.py:Class
  sdpo envs sample NAME [N] [split=train] [answer=TEXT|@FILE] [OPTION=VALUE ...]    tasks, and what is said of a few answers
  sdpo envs check NAME [OPTION=VALUE ...] [json=true]           whether it keeps the rules; exit code 1 if not
  sdpo envs rescore RUN [json=true]     a run's stored attempts judged again with today's verifier: what changed
  sdpo envs new NAME [FOLDER]           a package with an environment of your own, ready to edit
  sdpo envs prepare NAME to=DIR [from=HUB_ID|FOLDER]            the paper's tasks, fetched and checked: docs/experiments.md
""",
        run="sdpo.environments.command:run_envs",
        options=(
            (
                "OPTION=VALUE",
                "of show, sample, check and rescore: an option of the environment, as env.options.OPTION in sdpo train",
            ),
            ("split=SPLIT", "of sample: train or heldout"),
            ("seed=NUMBER", "of sample: which tasks"),
            ("tasks=NUMBER", "of check: how many tasks are examined"),
            ("answer=TEXT", "of sample: an answer of your own, or @FILE; several turns stand apart by a line with ---"),
            ("tasks_limit_s=SECONDS", "of show, sample and check: how long tasks() may take; 5 unless its class allows more"),
            ("train_split=SPLIT", "of check, if the environment names its splits otherwise"),
            ("heldout_split=SPLIT", "likewise"),
            ("json=true", "of check and rescore: the findings as JSON"),
            ("to=DIR", "of prepare: the folder to make"),
            ("from=HUB_ID|FOLDER", "of prepare: where the published files are"),
            ("level=LEVEL", "of prepare: which questions of SciKnowEval"),
            ("broken=leave_out", "of prepare: leave out rows that cannot be read, rather than refuse the file"),
        ),
    ),
    "doctor": Command(
        usage="""\
  sdpo doctor                           versions, devices, what is missing and how to get it
""",
        run="sdpo.preflight.doctor:run_doctor",
    ),
}


def commands() -> dict[str, Command]:
    """By name: ours in the order of the overview, then those of installed packages."""
    found = dict(BUILT_IN)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        found.setdefault(entry.name, _of_package(entry))
    return found


def _of_package(entry: EntryPoint) -> Command:
    """One that cannot be had is listed with the reason, and keeps nobody from calling another."""
    try:
        command = entry.load()
    except Exception as error:  # noqa: BLE001 - it is the package's, and anything
        return Command.broken(f"{entry.value} raised {describe(error)}", entry.name)
    if not isinstance(command, Command):
        return Command.broken(f"{entry.value} is no sdpo.commands.command.Command", entry.name)
    return command
