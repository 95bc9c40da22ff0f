"""How many tensors of one shape the trainer's own optimizers update together; the plan counts the scratch and time."""

from __future__ import annotations

NEWTON_SCHULZ_STEPS = 5  # Jordan et al. 2024; torch.optim.Muon's default
STACK_ELEMENTS = (
    2**25
)  # with 8 bytes of scratch for each in fp32, 256 MiB: whatever the model, unless one tensor has more


def stack_size(elements: int) -> int:
    """Tensors of so many elements in a full stack."""
    return max(1, STACK_ELEMENTS // elements)


def stack_sizes(elements: int, number: int) -> tuple[int, ...]:
    """The sizes of the stacks of `number` tensors."""
    whole, rest = divmod(number, stack_size(elements))
    return (stack_size(elements),) * whole + ((rest,) if rest else ())
