"""How the GPUs of a run share its work. Their number stands under hardware."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.config.section import Count, Section

Degree = Annotated[int, Field(ge=1, le=10**6)]


class ParallelConfig(Section):
    """The layout: data parallelism (DDP, ZeRO or FSDP2) over what tensor, pipeline and context parallelism leave."""

    fsdp: bool = Field(
        default=False,
        description="FSDP2: weights, gradients and optimizer state cut among all replicas; false: each holds all",
    )
    reshard: bool = Field(
        default=True, description="FSDP2 frees the gathered weights of a block after its forward pass"
    )
    hsdp: Count | None = Field(
        default=None, description="FSDP2 in groups of so many GPUs, each group a replica; absent: one group of all"
    )
    zero: Annotated[int, Field(ge=0, le=3)] = Field(
        default=0,
        description="ZeRO: 1 cuts the optimizer state among the replicas, 2 also gradients, 3 also weights; 0: none",
    )
    ddp_bucket_view: bool = Field(
        default=False,
        description="gradient_as_bucket_view of DDP: gradients lie in its buckets; false: buckets are a second copy",
    )
    tp: Degree = Field(default=1, description="tensor parallel: GPUs that share every matrix")
    sp: bool = Field(
        default=False, description="sequence parallel: the tp GPUs also share norms and the residual stream by token"
    )
    pp: Degree = Field(default=1, description="pipeline parallel: stages that the blocks are cut into")
    interleave: Degree = Field(default=1, description="chunks of blocks on each stage of an interleaved schedule")
    pp_schedule: Literal["1f1b", "interleaved", "zero-bubble", "dualpipe"] = Field(
        default="1f1b", description="order of the micro-batches in the pipeline"
    )
    cp: Degree = Field(default=1, description="context parallel: GPUs that share every sequence")
    ep: Degree = Field(default=1, description="expert parallel: GPUs among the replicas that share the experts")

    @property
    def gpus_per_replica(self) -> int:
        """GPUs that work on the same sequences."""
        return self.tp * self.pp * self.cp

    @property
    def is_data_parallel(self) -> bool:
        """Whether each GPU runs the whole model on sequences of its own under DDP or FSDP2."""
        return self.gpus_per_replica == self.ep == 1 and not self.zero

    @property
    def shards_weights(self) -> bool:
        """Whether weights are gathered for each block and freed."""
        return self.fsdp or self.zero == 3

    @model_validator(mode="after")
    def _of_one_kind(self) -> ParallelConfig:
        if self.fsdp and self.ddp_bucket_view:
            raise ValueError("ddp_bucket_view = true beside fsdp = true: FSDP2 has no buckets")
        if not self.fsdp and not self.reshard:
            raise ValueError("reshard = false without fsdp = true: only FSDP2 gathers weights that it could keep")
        if self.fsdp and self.zero:
            raise ValueError(f"zero = {self.zero} beside fsdp = true: FSDP2 cuts all three already, as zero = 3 does")
        if self.zero > 1 and self.ddp_bucket_view:
            raise ValueError(f"ddp_bucket_view = true beside zero = {self.zero}: ZeRO frees the buckets it reduced")
        if self.hsdp is not None and not self.fsdp:
            raise ValueError(f"hsdp = {self.hsdp} without fsdp = true: only FSDP2 shards in groups here")
        return self

    @model_validator(mode="after")
    def _pipeline_is_one(self) -> ParallelConfig:
        chunked = self.pp_schedule in ("interleaved", "zero-bubble")
        if self.sp and self.tp == 1:
            raise ValueError("sp = true with tp = 1: sequence parallelism shares what tensor parallelism leaves whole")
        if self.pp == 1 and self.pp_schedule != "1f1b":
            raise ValueError(f'pp_schedule = "{self.pp_schedule}" with pp = 1: there is no pipeline to order')
        if self.interleave > 1 and not chunked:
            raise ValueError(
                f'interleave = {self.interleave} beside pp_schedule = "{self.pp_schedule}": '
                "its stages are one chunk each; interleaved and zero-bubble take several"
            )
        if self.pp_schedule == "interleaved" and self.interleave == 1:
            raise ValueError('pp_schedule = "interleaved" with interleave = 1: that is 1f1b')
        if self.pp_schedule == "dualpipe" and self.pp % 2:
            raise ValueError(f'pp = {self.pp} beside pp_schedule = "dualpipe": two pipelines meet, pp is even')
        if self.pp > 1 and self.zero > 1:
            raise ValueError(
                f"zero = {self.zero} beside pp = {self.pp}: a pipeline adds up gradients that ZeRO-2 has freed; "
                "zero = 1 and fsdp = true go with pipelines"
            )
        return self
