"""Compiled models on ranks: the losses of the eager ones, and no breaks in the blocks that FSDP2 gathers."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch._dynamo.utils import counters

from planner.config.parallel import ParallelConfig
from tests.reference_trainer.conftest import config_of, written_text
from tests.reference_trainer.distributed.gloo_ranks import train_on
from tests.reference_trainer.distributed.test_replicas import rows_of


@pytest.mark.soak  # a compiler in each rank
@pytest.mark.parametrize("fsdp", [False, True])
def test_compiled_ranks_have_the_losses_of_eager_ones(tmp_path: Path, fsdp: bool) -> None:
    """Each block, under FSDP2, is one graph: what gathers and frees its weights stands outside of the program."""

    def breaks(rank: int, step: int) -> None:
        if step == 3:
            (tmp_path / f"breaks-{rank}").write_text(str(sum(counters["graph_break"].values())))

    text = written_text(tmp_path)
    for runtime in ("eager", "compiled"):
        config = config_of(gpus=2, steps=4, layers=3, runtime=runtime)
        config = config.model_copy(update={"parallel": ParallelConfig(fsdp=fsdp)})
        codes, said = train_on(2, config, tmp_path / runtime, text, before_step=breaks)
        assert codes == [0, 0], said
    eager, compiled = ([row["loss"] for row in rows_of(tmp_path / name)] for name in ("eager", "compiled"))
    assert compiled == pytest.approx(eager, rel=1e-5)
    assert (tmp_path / "breaks-0").read_text() == "0"
