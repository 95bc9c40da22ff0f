"""Reading a config.json key by key: present, of the right kind, supported; else one message that names the key."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from planner.errors import InputError

# a config names a function; how a program computes it (gelu_new: operator by operator in transformers, which keeps
# more for backward) is a choice of the plan: mlp = "gelu-written-out"
GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh")
PLAIN_ACTIVATIONS = dict.fromkeys(GELU, "gelu") | {"relu": "relu", "relu2": "relu2", "relu_squared": "relu2"}
GATED_ACTIVATIONS = dict.fromkeys(GELU, "geglu") | dict.fromkeys(("silu", "swish"), "swiglu")
BIASES = {  # of q, k and v; of the output projection; of the MLP
    (False, False, False): "none", (True, False, False): "qkv", (False, True, False): "proj",
    (False, False, True): "mlp", (True, True, False): "attention", (True, False, True): "qkv+mlp",
    (False, True, True): "proj+mlp", (True, True, True): "all",
}  # fmt: skip
MOST_LAYERS_READ = 10**4  # more than any model has
MAY_BE_LONG = 60  # characters of a value that a message shows


@dataclass(frozen=True, slots=True)
class HfConfig:
    """The keys of one config.json, and the defaults of its model type for keys that are absent.

    A key that is null has no value: transformers puts no default in its place. `assumed`: the defaults that were used
    as sizes; `read`: the keys that were looked at. Both grow while the file is read.
    """

    values: dict[str, Any]
    path: Path
    defaults: dict[str, Any] = field(default_factory=dict)
    assumed: dict[str, int] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def get(self, key: str, default: Any) -> Any:
        """A value, else the model type's own default where the key is absent, else `default`."""
        self.read.add(key)
        found = self.values[key] if key in self.values else self.defaults.get(key)
        return default if found is None else found

    def has(self, key: str) -> bool:
        """Whether the key has a value, or the model type a default for it."""
        return self.get(key, None) is not None

    def key(self, *names: str) -> str:
        """The first of these names that is present, else the first that has a default, else the first."""
        self.read.update(names)
        present = (k for k in names if self.values.get(k) is not None)
        return next(present, next((k for k in names if self.has(k)), names[0]))

    def changed(self, **values: Any) -> HfConfig:
        """The same config with other values under some keys."""
        return replace(self, values=self.values | values)

    def size(self, *keys: str, default: int | None = None) -> int:
        """A positive whole number under the first of these names that is present. Raises InputError."""
        key = self.key(*keys)
        found = self.get(key, default)
        if found is None:
            raise InputError(
                f"{self.path} has no {key}",
                why="the shape is not whole without it",
                remedy="give the config.json that belongs to the weights",
            )
        if type(found) is not int or found < 1:
            raise InputError(
                f"{self.path}: {key} = {repr(found)[:MAY_BE_LONG]} is not a positive whole number",
                why="the shape follows from it",
                remedy="give the config.json that belongs to the weights",
            )
        if key not in self.values and key in self.defaults:
            self.assumed[key] = found
        return found

    def natural(self, key: str) -> int:
        """A whole number that may be 0. Raises InputError."""
        found = self.get(key, 0)
        if type(found) is not int or found < 0:
            raise self.unsupported(key, "a whole number, 0 or more")
        return found

    def layers(self, key: str) -> int:
        """The number of blocks, of which lists are made. Raises InputError."""
        found = self.size(key)
        if found > MOST_LAYERS_READ:
            raise self.unsupported(key, f"at most {MOST_LAYERS_READ} layers")
        return found

    def inside(self, key: str) -> HfConfig:
        """The keys of an object within. Raises InputError when it is none."""
        found = self.get(key, {})
        if not isinstance(found, dict):
            raise self.unsupported(key, "an object of keys")
        return HfConfig(found, self.path)  # its keys have no defaults of their own

    def share(self, width: str, heads: str) -> int:
        """The width of one head. Raises InputError when the heads do not divide the width."""
        whole, parts = self.size(width), self.size(heads)
        if whole % parts:
            raise InputError(
                f"{self.path}: {width} = {whole} is not divisible by {heads} = {parts}",
                why="the width is shared out evenly among the heads",
                remedy="change one of the two",
            )
        return whole // parts

    def flag(self, key: str, default: bool) -> bool:
        """A true or false; null is false, as transformers takes it. Raises InputError for anything else."""
        if key in self.values and self.values[key] is None:
            self.read.add(key)
            return False
        self.only(key, default, (True, False))
        return bool(self.get(key, default))

    def only(self, key: str, default: Any, allowed: tuple[Any, ...]) -> None:
        """Refuse a value that would be counted wrongly. Raises InputError."""
        found = self.get(key, default)
        if not any(type(found) is type(known) and found == known for known in allowed):
            raise self.unsupported(key, ", ".join(map(repr, allowed)))

    def unsupported(self, key: str, allowed: str) -> InputError:
        """The refusal of a value, to be raised."""
        return InputError(
            f"{self.path}: {key} = {repr(self.get(key, None))[:MAY_BE_LONG]} is not supported",
            why="its parameters or activations would be counted wrongly",
            remedy=f"supported: {allowed}",
        )

    def mlp(self, known: dict[str, str], *keys: str, default: str) -> str:
        """Our name of the MLP whose activation stands under the first of these keys. Raises InputError."""
        key = self.key(*keys)
        found = self.get(key, default)
        if not isinstance(found, str) or found not in known:
            raise self.unsupported(key, ", ".join(map(repr, known)))
        return known[found]

    def biases(self, qkv: str = "attention_bias", proj: str = "attention_bias", mlp: str | None = "mlp_bias") -> str:
        """Our name of the linear layers with a bias, by the keys that say so; mlp None: no key, and no bias there."""
        of_mlp = False if mlp is None else self.flag(mlp, False)
        return BIASES[self.flag(qkv, False), self.flag(proj, False), of_mlp]

    def rotary(self, head_dim: int, *keys: str, default: float = 1.0) -> dict[str, Any]:
        """Position keys of a rotary model; a part of the head is said under `keys`, or in rope_parameters."""
        nested = self.get("rope_parameters", {})
        self.read.update((*keys, "partial_rotary_factor"))
        places = [(key, self.values) for key in keys] + [("partial_rotary_factor", nested)]
        found = next((p[k] for k, p in places if isinstance(p, dict) and p.get(k) is not None), default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 1:
            raise self.unsupported(keys[0] if keys else "rope_parameters", "a share of the head, above 0 and at most 1")
        turned = int(head_dim * found)
        return {"position": "rotary"} | ({} if turned == head_dim else {"rotary_dim": turned})

    def window(self, layers: int, every: int | None = None, key: str = "sliding_window") -> dict[str, Any]:
        """Keys of sliding-window attention.

        `every`: each such block sees all keys, where the file has no layer_types. Raises InputError for a pattern of
        layers that `ModelConfig` cannot say.
        """
        if not self.has(key) or not self.flag("use_sliding_window", True):
            self.get("layer_types", None)
            return {}
        full = self._full_layers(layers, every)
        if len(full) == layers:
            return {}
        pattern = "layer_types" if "layer_types" in self.values else "max_window_layers"
        step = self.step_of(full, layers, pattern)
        return {"sliding_window": self.size(key)} | ({"full_attention_every": step} if step else {})

    def step_of(self, chosen: list[int], layers: int, key: str) -> int | None:
        """The k of blocks that are every k-th; None for no block. Raises InputError, naming `key`, for others."""
        if not chosen:
            return None
        step = chosen[0] + 1
        if step < 1 or chosen != list(range(step - 1, layers, step)):
            raise self.unsupported(key, "every k-th layer, the first of them the k-th")
        return step

    def pattern(self, default: int) -> int:
        """Of how many blocks the last one sees all keys: sliding_window_pattern, a number or a word such as LLLG."""
        if self.has("layer_types"):
            return default  # the file says it layer by layer
        found = self.get("sliding_window_pattern", default)
        if isinstance(found, str) and found and set(found[:-1]) <= {"L"} and found.endswith("G"):
            return len(found)
        return self.size("sliding_window_pattern", default=default)

    def _full_layers(self, layers: int, every: int | None) -> list[int]:
        """The blocks that see all keys."""
        types = self.get("layer_types", None)
        if types is not None:
            known = ("full_attention", "sliding_attention")
            if not isinstance(types, list) or len(types) != layers or any(t not in known for t in types):
                raise self.unsupported("layer_types", "one of full_attention, sliding_attention for each layer")
            return [i for i, t in enumerate(types) if t == "full_attention"]
        if self.get("use_sliding_window", False) is True:  # Qwen: the first layers see all keys
            first = self.get("max_window_layers", layers)
            if type(first) is not int or first < 0:
                raise self.unsupported("max_window_layers", "a whole number of layers")
            return list(range(min(layers, first)))
        return [] if every is None else list(range(every - 1, layers, every))
