"""What a weights file of ours may say of its scores."""

from typing import Any

import pytest

from finetune.models.checkpoints.metadata import require_sound
from finetune.utils.errors import CheckpointError


@pytest.mark.parametrize("evaluation", [{}, None, {"protocol": {"name": "plain"}, "rows": {"finetuned": {"a": 1.0}}}])
def test_weights_that_nothing_scored_yet_can_be_read(evaluation: Any) -> None:
    require_sound({"step": 20, "evaluation": evaluation}, "last/model.safetensors")


@pytest.mark.parametrize("evaluation", [7, {"rows": 3}, {"protocol": 3}])
def test_what_no_run_writes_is_refused(evaluation: Any) -> None:
    with pytest.raises(CheckpointError, match="expected a protocol and rows"):
        require_sound({"evaluation": evaluation}, "last/model.safetensors")
