"""How many matrices of one shape Muon updates together: the trainer does, the plan counts scratch and time."""

from __future__ import annotations

NEWTON_SCHULZ_STEPS = 5  # Jordan et al. 2024; torch.optim.Muon's default
STACK_ELEMENTS = (
    2**25
)  # with 8 bytes of scratch for each in fp32, 256 MiB: whatever the model, unless one matrix has more


def stack_size(elements: int) -> int:
    """Matrices of so many elements in a full stack."""
    return max(1, STACK_ELEMENTS // elements)


def stack_sizes(elements: int, number: int) -> tuple[int, ...]:
    """The sizes of the stacks of `number` matrices."""
    whole, rest = divmod(number, stack_size(elements))
    return (stack_size(elements),) * whole + ((rest,) if rest else ())
