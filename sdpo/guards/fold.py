"""The guards of a run: what has been recorded, folded into alarms, and into what the loop does because of them.

Pure: the same records give the same state. A continued run folds the records of the run it continues, and so stands where that
stood (λ as high, the teacher as frozen). Hence whoever feeds it live feeds the numbers as they are recorded, rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sdpo.config import AlgorithmConfig, Blend, Config, Guard, OnGainTeacher, Response, SDPOConfig
from sdpo.guards.alarms import Alarm, Rule, evaluation_rules, step_rules
from sdpo.guards.gain import Gain
from sdpo.types import Metrics


class Guards:
    """What the loop asks before it learns, and after an evaluation."""

    def __init__(self, config: Config) -> None:
        self._config = config.guards
        self._of_steps = step_rules(config.guards, config.algorithm)
        self._of_evaluations = {**evaluation_rules(config.guards), Guard.credit: self._of_steps[Guard.credit]}
        self._raised: dict[Guard, int] = {}
        self._gain = _gain(config)
        self.algorithm: AlgorithmConfig = config.algorithm
        """What is minimised, with λ as the alarms have left it."""
        self.teacher_follows = True
        self.last_refresh = 0
        """The step after which the teacher became the policy."""
        self.num_refreshes = 0
        self.alarms: list[Alarm] = []
        self.stopped_by: Alarm | None = None
        """Why the run ends."""

    def step(self, step: int, metrics: Metrics) -> tuple[Alarm, ...]:
        """The alarms that a step's numbers raise."""
        alarms = self._check(step, self._of_steps, metrics)
        if self._gain is not None and self._gain.step(metrics) and self.teacher_follows:
            self._refresh(step)
        return alarms

    def evaluation(self, step: int, metrics: Metrics) -> tuple[Alarm, ...]:
        """The alarms that an evaluation after ``step`` steps raises."""
        alarms = self._check(step, self._of_evaluations, metrics)
        if self._gain is not None and self._gain.evaluation(metrics) and self.teacher_follows:
            self._refresh(step)
        return alarms

    @property
    def may_save(self) -> bool:
        """False where the newest checkpoint shall stay the one from before the alarm."""
        return self.stopped_by is None or self._config.response is not Response.stop

    @property
    def numbers(self) -> dict[str, float]:
        """What the alarms have changed, for the record."""
        found = {}
        if self._config.response is Response.raise_policy_gradient and isinstance(self.algorithm, SDPOConfig):
            found["policy_gradient_share"] = _share(self.algorithm)
        if self._gain is not None or self._config.response is Response.refresh_teacher:
            found["teacher_refreshes"] = float(self.num_refreshes)
        return found

    def _check(self, step: int, rules: Mapping[Guard, Rule], metrics: Metrics) -> tuple[Alarm, ...]:
        raised = []
        for guard, rule in rules.items():
            sentence = rule.check(metrics)
            before = self._raised.get(guard)
            if sentence is not None and (before is None or step >= before + self._config.repeat_after):
                self._raised[guard] = step
                raised.append(Alarm(guard=guard, step=step, sentence=sentence))
        for alarm in raised:
            self.alarms.append(alarm)
            if alarm.guard in self._config.responds_to:
                self._respond(alarm)
        return tuple(raised)

    def _respond(self, alarm: Alarm) -> None:
        match self._config.response:
            case Response.warn:
                pass
            case Response.refresh_teacher:
                self._refresh(alarm.step)
                if self._gain is not None:
                    self._gain.refreshed()
            case Response.freeze_teacher:
                self.teacher_follows = False
            case Response.raise_policy_gradient:
                assert isinstance(self.algorithm, SDPOConfig)
                share = _share(self.algorithm) + self._config.policy_gradient_step
                share = min(share, self._config.max_policy_gradient_share)
                self.algorithm = replace(self.algorithm, routing=Blend(policy_gradient_share=share))
            case Response.stop_at_best | Response.stop:
                self.stopped_by = self.stopped_by or alarm

    def _refresh(self, step: int) -> None:
        """Several reasons at one step are one refresh."""
        self.num_refreshes += step != self.last_refresh
        self.last_refresh = step


def folded(config: Config, rows: Iterable[Mapping[str, object]], evaluations: Iterable[Mapping[str, object]]) -> Guards:
    """The guards of a run that has recorded these lines of metrics.jsonl and evaluations.jsonl."""
    guards = Guards(config)
    of_steps = [(_numbers(row), guards.step) for row in rows]
    of_evaluations = [(_numbers(record), guards.evaluation) for record in evaluations]
    for numbers, check in sorted([*of_steps, *of_evaluations], key=lambda pair: pair[0]["step"]):  # stable: first the step
        check(int(numbers["step"]), numbers)
    return guards


def _share(algorithm: SDPOConfig) -> float:
    """λ of the blend; ``refuse_senseless_response`` lets no other routing here."""
    assert isinstance(algorithm.routing, Blend)
    return algorithm.routing.policy_gradient_share


def _gain(config: Config) -> Gain | None:
    teacher = config.algorithm.taught_by
    if not isinstance(teacher, OnGainTeacher):
        return None
    return Gain(teacher, by_evaluation=config.evaluation.every > 0 and config.evaluation.num_tasks > 0)


def _numbers(record: Mapping[str, object]) -> dict[str, float]:
    return {name: float(value) for name, value in record.items() if isinstance(value, int | float)}
