"""How the GPUs of a run share its work. Their number stands under hardware."""

from __future__ import annotations

from pydantic import Field, model_validator

from planner.config.section import Section


class ParallelConfig(Section):
    """Data parallelism: DistributedDataParallel, or FSDP2. One GPU has neither."""

    fsdp: bool = Field(
        default=False,
        description="FSDP2: weights, gradients and optimizer state cut among all GPUs; false: each holds all of them",
    )
    reshard: bool = Field(
        default=True, description="FSDP2 frees the gathered weights of a block after its forward pass"
    )
    ddp_bucket_view: bool = Field(
        default=False,
        description="gradient_as_bucket_view of DDP: gradients lie in its buckets; false: buckets are a second copy",
    )

    @model_validator(mode="after")
    def _of_one_kind(self) -> ParallelConfig:
        if self.fsdp and self.ddp_bucket_view:
            raise ValueError("ddp_bucket_view = true beside fsdp = true: FSDP2 has no buckets")
        if not self.fsdp and not self.reshard:
            raise ValueError("reshard = false without fsdp = true: only FSDP2 gathers weights that it could keep")
        return self
