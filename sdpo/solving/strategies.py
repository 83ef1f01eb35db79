"""The strategies by their names."""

from __future__ import annotations

from collections.abc import Mapping

from sdpo.config import StrategyName
from sdpo.solving.best_of_k import BestOfK
from sdpo.solving.multi_turn import MultiTurn
from sdpo.solving.sdpo import SelfDistillation
from sdpo.solving.sdpo_multi_turn import SelfDistillationInTurns
from sdpo.solving.strategy import Strategy

STRATEGIES: Mapping[StrategyName, Strategy] = {
    StrategyName.best_of_k: BestOfK(),
    StrategyName.multi_turn: MultiTurn(),
    StrategyName.sdpo: SelfDistillation(),
    StrategyName.sdpo_multi_turn: SelfDistillationInTurns(),
}
