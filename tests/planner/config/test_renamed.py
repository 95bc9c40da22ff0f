"""Keys that were renamed: a file or a checkpoint with the old names gives the same config."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.config.renamed import OLD_NAMES, settings_with_new_names, with_new_names
from planner.config.resume import changes, keys_of_a_config, settings_of
from planner.errors import ConfigError
from planner.inputs.run_toml import config_text, load_config

VERSION_1 = Path(__file__).parents[2] / "data/version_1"


@pytest.mark.parametrize(("name", "masked"), [("masked", True), ("unmasked", False), ("run/config", True)])
def test_a_file_with_old_names_loads_and_is_written_with_new_ones(name: str, masked: bool, tmp_path: Path) -> None:
    path = VERSION_1 / f"{name}.toml"
    assert "document_borders" in path.read_text("utf-8")
    config = load_config(path)
    assert config.training.document_masking is masked
    text = config_text(config)
    assert "document_borders" not in text and f"document_masking = {str(masked).lower()}" in text
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    assert load_config(tmp_path / "run.toml") == config


def test_every_new_name_is_a_key_and_no_old_one_is() -> None:
    keys = set(keys_of_a_config())
    assert set(OLD_NAMES.values()) <= keys and not set(OLD_NAMES) & keys
    assert all(old.partition(".")[0] == new.partition(".")[0] for old, new in OLD_NAMES.items())


@pytest.mark.parametrize("old", ["across", "cut"])
def test_settings_of_an_old_checkpoint_change_nothing(old: str) -> None:
    now = settings_of(load_config(VERSION_1 / "masked.toml")) | {"training.document_masking": old == "cut"}
    stored = {key: value for key, value in now.items() if key != "training.document_masking"}
    assert changes(stored | {"training.document_borders": old}, now) == ()
    other = now | {"training.document_masking": old != "cut"}
    (change,) = changes(stored | {"training.document_borders": old}, other)
    assert (change.key, change.before, change.now) == ("training.document_masking", old == "cut", old != "cut")
    assert change.verdict == "refused"


def test_the_order_of_the_keys_stays() -> None:
    values = {"training": {"a": 1, "document_borders": "cut", "b": 2}, "model": {"name": "x"}}
    found = with_new_names(values)
    assert list(found["training"]) == ["a", "document_masking", "b"] and found["model"] is values["model"]
    assert values["training"]["document_borders"] == "cut"  # what was handed in is not changed
    assert list(settings_with_new_names({"x": 0, "training.document_borders": "across"}).values()) == [0, False]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('document_borders = "sideways"', "training.document_borders = 'sideways'"),
        ("document_borders = [1]", "training.document_borders = [1]"),
        ('document_borders = "cut"\ndocument_masking = true', "training.document_borders is the old name"),
    ],
)
def test_an_old_name_that_says_nothing_clear_is_refused(line: str, words: str, tmp_path: Path) -> None:
    text = (VERSION_1 / "masked.toml").read_text("utf-8").splitlines()
    text = [line if each.startswith("document_borders") else each for each in text]
    (tmp_path / "run.toml").write_text("\n".join(text), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "run.toml")
    assert words in caught.value.what and "training.document_masking" in caught.value.message()
