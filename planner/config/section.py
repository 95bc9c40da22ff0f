"""Habits and number types that every section of a `RunConfig` shares."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=10**18)]
Natural = Annotated[int, Field(ge=0, le=10**18)]
Width = Annotated[int, Field(ge=1, le=10**9)]  # ten thousand times what has been trained
Every = Annotated[int, Field(ge=1, le=64)]  # of so many blocks one differs
Layers = Annotated[int, Field(ge=1, le=10_000)]  # a hundred times what has been trained
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """Common habits of all sections: frozen, unknown keys refused, no NaN or infinity, nothing coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
