"""The strategy of a collection, from the configuration and the command line."""

from __future__ import annotations

import pytest

from cowest_graph.graph import Adaptive
from cowest_graph.testing import ScriptedModel
from trainer.cli.config import Config


def test_the_configuration_says_how_traces_are_collected() -> None:
    plain = Config()
    assert plain.collectors(ScriptedModel(["a"])).strategy == "algorithm1"
    saving = plain.collecting(strategy="adaptive")
    assert saving.collectors(ScriptedModel(["a"])).strategy == Adaptive()
    again = saving.model_copy(update={"collect": saving.collect.model_copy(update={"again": 3})})
    assert again.collectors(ScriptedModel(["a"])).strategy == Adaptive(again=3)
    assert saving.collecting(strategy=None) is saving


def test_an_unknown_strategy_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="strategy: Input should be 'algorithm1' or 'adaptive'"):
        Config().collecting(strategy="lazy")
