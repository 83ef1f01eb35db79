"""Each update has the rate that its place in the run gives it, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sdpo.config import (
    BatchConfig,
    Config,
    ConstantSchedule,
    CosineSchedule,
    EnvConfig,
    GRPOConfig,
    LearnerConfig,
    LinearSchedule,
    ModelConfig,
    ScheduleConfig,
    SDPOConfig,
    SolveConfig,
)
from sdpo.config.compose import saved_config, train_config, warmup_config
from sdpo.errors import UserError
from sdpo.run.folder import RunFolder, plain

MODEL, ENV = ModelConfig(name="m", path="m"), EnvConfig(name="code")


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (ConstantSchedule(), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (LinearSchedule(num_steps=4), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        (LinearSchedule(num_steps=4, floor=0.2), [1.0, 0.8, 0.6, 0.4, 0.2, 0.2]),
        (CosineSchedule(num_steps=4), [1.0, 0.8535533905932737, 0.5, 0.14644660940672627, 0.0, 0.0]),
        (CosineSchedule(num_steps=4, floor=0.5), [1.0, 0.9267766952966369, 0.75, 0.5732233047033631, 0.5, 0.5]),
        (CosineSchedule(num_steps=1, floor=1.0), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
    ids=lambda value: repr(value) if isinstance(value, ScheduleConfig) else "",
)
def test_a_schedule_goes_down_to_its_floor_and_stays_there(schedule: ScheduleConfig, shares: list[float]) -> None:
    assert [schedule.share(step) for step in range(6)] == pytest.approx(shares, abs=1e-12)


def test_warm_up_and_schedule_multiply() -> None:
    """The warm-up counts updates, the schedule steps: here two updates a step."""
    learner = LearnerConfig(lr=1.0, warmup_updates=4, schedule=LinearSchedule(num_steps=5))
    rates = [learner.rate(step=update // 2, num_updates=update) for update in range(8)]
    assert rates == pytest.approx([0.25, 0.5, 0.6, 0.8, 0.6, 0.6, 0.4, 0.4])


@pytest.mark.parametrize("warmup_updates", [0, 1, 3, 10])
def test_where_nothing_is_said_rates_are_those_of_the_warm_up_alone_to_the_last_bit(warmup_updates: int) -> None:
    learner = LearnerConfig(lr=3e-5, warmup_updates=warmup_updates)
    for taken in range(12):
        expected = 3e-5 * min(1.0, (taken + 1) / warmup_updates) if warmup_updates else 3e-5
        assert learner.rate(step=taken // 2, num_updates=taken) == expected


def test_a_schedule_takes_as_long_as_the_run_unless_it_says_otherwise() -> None:
    of_run = train_config(["num_steps=20", "learner.schedule.kind=cosine", "learner.schedule.floor=0.1"]).learner
    assert of_run.schedule == CosineSchedule(floor=0.1, num_steps=20)
    own = train_config(["num_steps=20", "learner=lora", "learner.schedule.kind=linear", "learner.schedule.num_steps=50"]).learner
    assert own.schedule == LinearSchedule(num_steps=50)
    of_warmup = warmup_config(["to=warm", "num_updates=30", "learner.schedule.kind=linear"]).learner
    assert of_warmup.schedule == LinearSchedule(num_steps=30)


def test_two_runs_may_share_a_learner_config() -> None:
    """The number of steps is the run's own: a config that is used twice is not left with the first run's."""
    learner = LearnerConfig(schedule=LinearSchedule())
    short, long = (Config(algorithm=GRPOConfig(), model=MODEL, env=ENV, learner=learner, num_steps=num) for num in (5, 50))
    assert (short.learner.schedule, long.learner.schedule) == (LinearSchedule(num_steps=5), LinearSchedule(num_steps=50))
    assert learner.schedule == LinearSchedule()


def test_a_search_whose_length_nobody_knows_needs_the_schedules_own() -> None:
    def search(schedule: ScheduleConfig, strategy: str = "sdpo") -> SolveConfig:
        learner, batch = LearnerConfig(schedule=schedule), BatchConfig(num_tasks=1)
        return SolveConfig(
            task="a", strategy=strategy, algorithm=SDPOConfig(), model=MODEL, env=ENV, batch=batch, learner=learner
        )

    with pytest.raises(ValueError, match=r"learner\.schedule\.num_steps must be given in a search .*got null with kind=cosine"):
        search(CosineSchedule())
    search(CosineSchedule(num_steps=32))
    search(CosineSchedule(), strategy="best_of_k")  # it learns nothing


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("learner.schedule.kind=cosin", "learner.schedule.kind must be one of constant, linear, cosine; got cosin"),
        ("learner.schedule.floor=0.1", "is a field of learner.schedule.kind=linear or learner.schedule.kind=cosine alone"),
    ],
)
def test_a_schedule_that_there_is_not_is_refused(word: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        train_config([word])
    assert said in str(refused.value)


def test_a_kind_on_the_fields_of_another_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"learner\.schedule\.kind decides which fields there are"):
        LearnerConfig(schedule=LinearSchedule(kind="cosine"))


def config(num_steps: int, schedule: ScheduleConfig) -> Config:
    return Config(
        algorithm=SDPOConfig(), model=MODEL, env=ENV, num_steps=num_steps, learner=LearnerConfig(schedule=schedule), name="run"
    )


def begun(folder: Path, config: Config, *, before_schedules: bool = False) -> RunFolder:
    written = plain(config)
    if before_schedules:
        learner = written["learner"]
        assert isinstance(learner, dict)
        del learner["schedule"]
    folder.mkdir()
    found = RunFolder(folder)
    found.config.write_text(yaml.safe_dump(written))
    return found


def test_a_longer_run_that_would_change_the_rates_is_refused(tmp_path: Path) -> None:
    """``num_steps`` may change in a continued run; a decay over it would then go back up."""
    run = begun(tmp_path / "run", config(10, LinearSchedule()))
    run.check(config(10, LinearSchedule()))
    with pytest.raises(UserError, match=r"learner\.schedule\.num_steps was 10 and is now 20"):
        run.check(config(20, LinearSchedule()))
    run.check(config(20, LinearSchedule(num_steps=10)))
    begun(tmp_path / "constant", config(10, ConstantSchedule())).check(config(20, ConstantSchedule()))


def test_a_run_from_before_there_were_schedules_has_a_constant_one(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", config(10, ConstantSchedule()), before_schedules=True)
    run.check(config(10, ConstantSchedule()))
    assert saved_config(run.config).learner.schedule == ConstantSchedule()
    with pytest.raises(UserError, match=r"learner\.schedule\.kind was 'constant' and is now 'cosine'"):
        run.check(config(10, CosineSchedule()))


def test_a_saved_config_keeps_its_schedule(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", config(10, CosineSchedule(floor=0.25)))
    assert saved_config(run.config).learner.schedule == CosineSchedule(floor=0.25, num_steps=10)
