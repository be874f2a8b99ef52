"""What is said where an earlier stage is stale: the earliest at fault, with the value that changed."""

import pytest

from osdtw_lib.errors import UserError
from osdtw_lib.stages import execute


@pytest.mark.parametrize("stage", ["fisher", "stage2", "stage3", "tables", "calibration"])
@pytest.mark.parametrize(
    "change, said",
    [
        ({"stage1.epochs": 9}, r"^stage1 \(.*stage1\): stale: stage1.epochs 2 -> 9; run notebook 03_stage1_fisher first"),
        ({"seed": 7}, r"^split \(.*split\): stale: seed 0 -> 7; run notebook 01_data_split first"),
    ],
    ids=["Stage 1", "seed"],
)
def test_the_earliest_stage_at_fault_is_named(finished_copy, stage, change, said):
    with pytest.raises(UserError, match=said):
        execute(finished_copy(change), stage)
