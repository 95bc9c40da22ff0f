"""From gradients to new weights: master weights, loss scale, clipping, optimizer step.

    weights kept in fp32 (mixed-bf16, fp32, mixed-fp16)   the optimizer updates the model's parameters
    weights in bf16, no master (pure-bf16)                the same, in bf16
    weights in bf16, fp32 master (master-bf16…)           it updates the masters; bf16 weights are rounded from them
        gradients of 4 bytes    each gradient is added to its master's as soon as backward has computed it
        gradients of 2 bytes    they stay in bf16; one tensor at a time gets an fp32 gradient and its update

`planner/memory/optimizer_step.py` predicts the memory of these steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from planner.config.run import RunConfig
from planner.counts.run import moments_dtype, recipe_of
from reference_trainer.distributed.sharding import ShardRows, local_gradient, local_part, rows_of, shard_mesh
from reference_trainer.model.roles import parameter_roles
from reference_trainer.optim.conditional_step import conditional_step, decides_on_host
from reference_trainer.optim.optimizers import has_no_state, initial_state, optimizers_for, set_lr


class Updater:
    """Everything between backward and the next forward, for one model.

    held: the model's parameters by name. parameters: the same, or this rank's rows of them, as plain tensors.
    weights: the tensors that are updated, by name: the parameters, or their fp32 masters.
    buffers: what else a checkpoint of the model has, by name: the bias that balances experts.
    rate: the schedule's learning rate, that of every group with factor 1.
    decides_on_host: whether `step` waits to read if the step is good; nothing else here waits.
    """

    def __init__(self, model: nn.Module, config: RunConfig) -> None:
        recipe = recipe_of(config)
        self.held = dict(model.named_parameters())
        self.rows = {name: rows for name, p in self.held.items() if (rows := rows_of(p)) is not None}
        mesh = shard_mesh(model)
        self.shards = None if mesh is None else mesh.get_group()
        self.parameters: dict[str, Tensor] = {name: local_part(p) for name, p in self.held.items()}
        self.weights: dict[str, Tensor] = dict(self.parameters)
        kept = model.state_dict(keep_vars=True).items()
        self.buffers: dict[str, Tensor] = {name: t for name, t in kept if not isinstance(t, nn.Parameter)}
        self.roles = parameter_roles(model)
        self.wide_gradients = recipe.gradients_bytes_per_parameter == torch.float32.itemsize
        self.has_master = recipe.master_weights_bytes_per_parameter > 0
        if self.has_master:
            self.weights = {name: p.detach().float() for name, p in self.parameters.items()}
            if self.wide_gradients:
                for name, p in self.parameters.items():
                    p.register_post_accumulate_grad_hook(_add_into_master(self.weights[name]))  # type: ignore[no-untyped-call]
        self.lr = 0.0
        self.clip_value = config.optimizer.clip_value
        moments = moments_dtype(config, recipe)
        # with bf16 gradients beside masters each tensor has an optimizer of its own, so that one fp32 gradient lives
        parts = [{name: w} for name, w in self.weights.items()] if self.per_tensor else [self.weights]
        self.optimizers = [
            (part, o) for part in parts for o in optimizers_for(part, self.roles, config.optimizer, moments)
        ]
        self.scaler = torch.amp.GradScaler(self._device.type) if recipe.loss_scale else None
        self.decides_on_host = any(decides_on_host(optimizer) for _, optimizer in self.optimizers)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.weights.values())).device

    @property
    def per_tensor(self) -> bool:
        """Whether each tensor is updated before the next gradient is converted to fp32."""
        return self.has_master and not self.wide_gradients

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all optimizers."""
        return [group for _, optimizer in self.optimizers for group in optimizer.param_groups]

    def set_lr(self, rate: float) -> None:
        """Give every parameter group the learning rate `rate`, times the group's own factor."""
        self.lr = rate
        for _, optimizer in self.optimizers:
            set_lr(optimizer, rate)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of `loss`, times the loss scale if there is one."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    @property
    def scale_tensor(self) -> Tensor:
        """The loss scale, a scalar on the device; 1 if there is none."""
        found = self._scale_tensors()
        return found["loss_scale.scale"].clone() if found else torch.ones((), device=self._device)

    @property
    def scale(self) -> float:
        """The loss scale as a number; the host waits for it."""
        return float(self.scale_tensor)

    def clip(self, limit: float | None) -> Tensor:
        """The global norm of the gradients; then clip them.

        Gradients are first divided by the loss scale. Then elements are clipped to `optimizer.clip_value`, and
        the result is scaled to a norm of at most `limit`, if these are set. The norm is computed first, because
        clipping elements would hide an infinity.
        """
        for name in self.rows:
            self.parameters[name].grad = local_gradient(self.held[name])
        if self.scaler is not None:
            self.scaler.unscale_(self)  # type: ignore[arg-type]  # it asks for the groups only: all in one kernel
        holders = self.weights if self.has_master and self.wide_gradients else self.parameters
        norm = clipped = self._norm(holders)
        if self.scaler is not None and self.shards is not None:
            self._find_infinite(norm)
        if self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(holders.values(), self.clip_value)
            clipped = norm if limit is None else self._norm(holders)
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(holders.values(), limit, clipped)
        return norm

    def _norm(self, holders: dict[str, Tensor]) -> Tensor:
        """The global norm of the gradients: of all rows, whichever rank has them. The host does not wait."""
        norm = torch.nn.utils.get_total_norm([w.grad for w in holders.values() if w.grad is not None])
        if self.shards is None:
            return norm
        squares = norm.square()
        dist.all_reduce(squares, group=self.shards)
        return squares.sqrt()

    def _find_infinite(self, norm: Tensor) -> None:
        """Tell the scaler what all ranks found: each has looked at its own rows, and all must scale alike."""
        assert self.scaler is not None
        for found in self.scaler._per_optimizer_states[id(self)]["found_inf_per_device"].values():
            found.copy_(norm.isfinite().logical_not())

    @torch.no_grad()
    def step(self, good: Tensor | bool = True) -> None:
        """Update the weights if `good` is true, and adjust the loss scale.

        good: a scalar bool on the device. If it is false, no bit of weights, moments and counters changes.
        """
        if isinstance(good, bool):
            good = torch.full((), good, device=self._device)
        if not self.decides_on_host or bool(good):
            for part, optimizer in self.optimizers:
                self._update(part, optimizer, good)
            if self.has_master and not self.per_tensor:
                for name, p in self.parameters.items():
                    p.copy_(self.weights[name])
        if self.scaler is not None:
            self.scaler.update()

    def _update(self, part: dict[str, Tensor], optimizer: torch.optim.Optimizer, good: Tensor) -> None:
        if not self.per_tensor:
            conditional_step(optimizer, good)
            return
        ((name, master),) = part.items()
        parameter = self.parameters[name]
        assert parameter.grad is not None
        master.grad = parameter.grad.float()
        conditional_step(optimizer, good)
        master.grad = None
        parameter.copy_(master)

    def zero_grad(self) -> None:
        """Free all gradients."""
        for holders in (self.held, self.parameters, self.weights):
            for w in holders.values():
                w.grad = None

    # --- what a checkpoint keeps ------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """The optimizers' tensors as `<parameter>.<what>`; the initial state before the first update."""
        found: dict[str, Tensor] = {}
        for name, optimizer, w in self._optimizer_of_each():
            held = optimizer.state.get(w) or initial_state(optimizer, w)
            found |= {f"{name}.{key}": value for key, value in _stored(held).items()}
        return found | self._scale_tensors()

    def rows_of(self, name: str, slot: Tensor) -> ShardRows | None:
        """Which rows this rank has of a weight, or of a state of it such as <weight>.exp_avg; None: it has all."""
        weight = name if name in self.rows else name.rpartition(".")[0]
        return self.rows.get(weight) if slot.dim() else None

    def whole_numel(self, name: str) -> int:
        """Elements of a weight, on all ranks together."""
        local, rows = self.weights[name], self.rows.get(name)
        return local.numel() if rows is None else rows.total * math.prod(local.shape[1:])

    def without_state(self) -> list[str]:
        """The names of tensors whose optimizer keeps no state, of which older checkpoints hold a momentum of zeros."""
        return [name for name, optimizer, _ in self._optimizer_of_each() if has_no_state(optimizer)]

    def new_state(self) -> dict[str, Tensor]:
        """A new state with the names of `state`, used from now on; a checkpoint is copied into it."""
        slots: dict[str, Tensor] = {}
        for name, optimizer, w in self._optimizer_of_each():
            optimizer.state[w] = initial_state(optimizer, w)
            slots |= {f"{name}.{key}": value for key, value in _stored(optimizer.state[w]).items()}
        return slots | self._scale_tensors()

    def finish_loading(self, slots: dict[str, Tensor]) -> None:
        """After `weights` and `slots` were loaded: set plain numbers and the model's parameters from them."""
        for name, optimizer, w in self._optimizer_of_each():
            state = optimizer.state[w]
            state |= {key: int(slots[f"{name}.{key}"]) for key, value in state.items() if isinstance(value, int)}
        if self.has_master:
            for name, p in self.parameters.items():
                p.data.copy_(self.weights[name])

    def _optimizer_of_each(self) -> list[tuple[str, torch.optim.Optimizer, Tensor]]:
        """Every updated tensor with its name and its optimizer, in the model's order."""
        mine = {id(w): o for _, o in self.optimizers for group in o.param_groups for w in group["params"]}
        return [(name, mine[id(w)], w) for name, w in self.weights.items()]

    def _scale_tensors(self) -> dict[str, Tensor]:
        scaler = self.scaler
        if scaler is None:
            return {}
        if scaler._scale is None:  # made at the first use; nothing public makes them earlier
            scaler._lazy_init_scale_growth_tracker(self._device)
        assert scaler._scale is not None and scaler._growth_tracker is not None
        return {"loss_scale.scale": scaler._scale, "loss_scale.growth_tracker": scaler._growth_tracker}


def _stored(state: dict[str, Any]) -> dict[str, Tensor]:
    """A tensor's state as tensors; bitsandbytes counts steps in an int, and its lookup tables are constants."""
    kept = {key: value for key, value in state.items() if not key.startswith("qmap")}
    return {key: v if isinstance(v, Tensor) else torch.tensor(float(v)) for key, v in kept.items()}


def _add_into_master(master: Tensor) -> Callable[[Tensor], None]:
    """A hook that adds a parameter's gradient to its master's, in fp32, and frees it."""

    def hook(parameter: Tensor) -> None:
        assert parameter.grad is not None
        if master.grad is None:
            master.grad = parameter.grad.float()
        else:
            master.grad.add_(parameter.grad)
        parameter.grad = None

    return hook


def make_optimizer(model: nn.Module, config: RunConfig) -> Updater:
    """The updater of `model` for the config's optimizer and recipe.

    Raises ConfigError for a combination that no optimizer has, PlanError if a package is missing.
    """
    return Updater(model, config)
