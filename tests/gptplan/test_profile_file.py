"""A machine profile as a file: beside a config by its hash, made elsewhere, damaged, of another card, noisy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gptplan
from planner.errors import ConfigError, FileError
from planner.inputs.profile_file import profile_text
from planner.inputs.run_toml import config_text, load_config, write_config
from tests.gptplan.calling import Call
from tests.machine_profile import keep_profile, quiet

SMALL = ("--layers", "2", "--hidden", "32", "--heads", "2", "--vocab", "256", "--seq", "32", "--steps", "8")
FOR_CPU = (*SMALL, "--micro-batch", "2", "--gpu", "cpu")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A profile of a processor that was measured elsewhere."""
    return written(tmp_path / "elsewhere.json", quiet(device_name="another processor"))


@pytest.fixture
def of_gpu(tmp_path: Path) -> Path:
    """A profile that says it is of an H200, with two sizes of every kernel and a host that launches them."""
    kernels = {
        name: {
            kind: [*rows, [*(2 * size for size in rows[-1][:-1]), 2 * rows[-1][-1]]] if len(rows) == 1 else rows
            for kind, rows in kinds.items()
        }
        for name, kinds in quiet()["kernels"].items()
    }
    kernels["launch"] = {"fp32": [[1024, 1e-5]]}  # which a processor does not have
    return written(tmp_path / "h200.json", quiet(device="cuda", device_name="NVIDIA H200", kernels=kernels))


def written(path: Path, profile: dict[str, Any]) -> Path:
    path.write_text(profile_text(profile))
    return path


def basis(call: Call, *words: str) -> str:
    said = call("estimate", *words, "--json")
    assert said.code == 0, said
    found: str = json.loads(said.out)["throughput"]["basis"]
    return found


# --- beside a config --------------------------------------------------------------------------------------------------


def test_a_config_names_its_profile_by_hash_and_reads_it_back(call: Call, tmp_path: Path) -> None:
    keep_profile(tmp_path / "cache")
    assert call("plan", *FOR_CPU, "-o", "run.toml").code == 0
    (file,) = tmp_path.glob("run.profile-*.json")
    text = (tmp_path / "run.toml").read_text()
    assert f'profile = "{file.name}"' in text and len(text) < 15_000 and "[profile" not in text
    assert load_config(tmp_path / "run.toml").profile == quiet()
    assert basis(call, "--config", "run.toml") == "profile"


def test_an_old_file_with_the_whole_profile_still_loads_and_gets_a_file_when_it_is_written(
    call: Call, tmp_path: Path
) -> None:
    keep_profile(tmp_path / "cache")
    old = gptplan.plan(**{word.strip("-").replace("-", "_"): value for word, value in pairs(FOR_CPU)})
    (tmp_path / "old.toml").write_text(config_text(old))
    assert load_config(tmp_path / "old.toml") == old and old.profile is not None
    assert call("plan", "--config", "old.toml", "-o", "new.toml").code == 0
    assert load_config(tmp_path / "new.toml").profile == old.profile
    assert len(list(tmp_path.glob("new.profile-*.json"))) == 1


@pytest.mark.parametrize("inline", [True, False])
def test_a_noisy_profile_of_an_older_file_is_not_used_and_the_plan_says_so(
    call: Call, tmp_path: Path, inline: bool
) -> None:
    keep_profile(tmp_path / "cache")
    old = gptplan.plan(**{word.strip("-").replace("-", "_"): value for word, value in pairs(FOR_CPU)})
    busy = old.model_copy(update={"profile": quiet(relative_noise=0.4)})
    if inline:
        (tmp_path / "old.toml").write_text(config_text(busy))
    else:
        write_config(tmp_path / "old.toml", busy)
    loaded = load_config(tmp_path / "old.toml")
    assert loaded.profile is None
    assert "its noise is 40%" in next(a.source for a in loaded.provenance.assumptions if a.key == "profile")
    said = json.loads(call("estimate", "--config", "old.toml", "--json").out)
    assert said["throughput"]["basis"] == "unknown"
    assert any("its noise is 40%" in f["message"] for f in said["findings"] if f["code"] == "no_profile")
    again = json.loads(
        call("estimate", "--config", "old.toml", "--seq", "16", "--json").out
    )  # over the file: this machine's
    assert again["throughput"]["basis"] == "profile"
    assert not [a for a in again["config"]["provenance"]["assumptions"] if a["key"] == "profile"]


def pairs(words: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(zip(words[::2], words[1::2], strict=True))


def test_what_is_printed_holds_its_profile_itself(call: Call, tmp_path: Path) -> None:
    keep_profile(tmp_path / "cache")
    (tmp_path / "printed.toml").write_text(call("plan", *FOR_CPU).out)
    assert load_config(tmp_path / "printed.toml").profile == quiet()
    assert not list(tmp_path.glob("*.profile-*"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.unlink(), ("cannot be read", "copied or moved without it", "beside run.toml")),
        (lambda file: file.write_text(file.read_text().replace("e-0", "e-1", 1)), ("was changed", "hash")),
        (lambda file: file.write_bytes(b"\xff\xfe"), ("cannot be read",)),
        (lambda file: file.rename(file.with_name("run.profile-000000000000.json")), ("cannot be read",)),
    ],
    ids=["gone", "changed", "binary", "renamed"],
)
def test_a_profile_that_is_not_the_configs_is_one_message(
    damage: Any, words: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    keep_profile(tmp_path / "cache")
    assert call("plan", *FOR_CPU, "-o", "run.toml").code == 0
    damage(next(tmp_path.glob("run.profile-*.json")))
    for command in ("estimate", "--config", "run.toml"), ("run", "run.toml", "--out", "out"):
        call(*command).refused("run.toml", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../run.profile-0123456789ab.json", "/etc/passwd", "profile.json", ""])
def test_a_name_of_another_kind_is_refused(name: str, call: Call, tmp_path: Path) -> None:
    assert call("plan", *FOR_CPU, "-o", "run.toml").code == 0
    toml = tmp_path / "run.toml"
    toml.write_text(toml.read_text().replace("schema_version = 1", f'schema_version = 1\nprofile = "{name}"'))
    call("estimate", "--config", "run.toml").refused("not the name of a profile file")


def test_both_files_are_written_or_neither(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_profile(tmp_path / "cache")
    (tmp_path / "there.toml").write_text("mine")
    call("plan", *FOR_CPU, "-o", "there.toml").refused("there.toml exists already")
    assert (tmp_path / "there.toml").read_text() == "mine"
    call("plan", *FOR_CPU, "-o", "none/run.toml").refused("cannot be written")
    config = gptplan.plan(layers=2, hidden=32, heads=2, vocab=256, seq=32, steps=8, micro_batch=2, gpu="cpu")
    from planner.inputs import profile_file

    real = profile_file.write_atomically

    def full_disk(path: Path, content: str, *, overwrite: bool = False) -> None:
        if path.suffix == ".toml":
            raise FileError(f"{path} cannot be written", why="no space left", remedy="make room")
        real(path, content, overwrite=overwrite)

    monkeypatch.setattr(profile_file, "write_atomically", full_disk)
    with pytest.raises(FileError):
        write_config(tmp_path / "run.toml", config)
    assert not list(tmp_path.glob("*.profile-*"))


# --- --profile --------------------------------------------------------------------------------------------------------


def test_a_profile_from_elsewhere_gives_speed_and_card(call: Call, elsewhere: Path, of_gpu: Path) -> None:
    assert basis(call, *FOR_CPU, "--profile", elsewhere.name) == "profile"
    plain = json.loads(call("estimate", *SMALL, "--profile", of_gpu.name, "--json").out)
    assert plain["throughput"]["basis"] == "profile"
    config = gptplan.plan(layers=2, hidden=32, steps=8, profile=of_gpu)
    assert config.hardware.gpu == "h200" and config.profile is not None
    assert [a.source for a in config.provenance.assumptions if a.key == "gpu"] == ["the card of the machine profile"]
    assert gptplan.plan(layers=2, hidden=32, steps=8, profile=elsewhere).hardware.gpu == "cpu"


def test_a_plan_for_another_card_refuses_it_by_name(call: Call, elsewhere: Path, of_gpu: Path) -> None:
    h100 = (*SMALL, "--gpu", "h100-80gb")
    call("estimate", *h100, "--profile", of_gpu.name).refused("NVIDIA H200", "the plan is for h100-80gb", "--gpu h200")
    call("estimate", *h100, "--profile", elsewhere.name).refused("another processor", "h100-80gb")
    call("estimate", *FOR_CPU, "--profile", of_gpu.name).refused("NVIDIA H200", "the plan is for cpu")
    assert call("plan", *h100, "-o", "run.toml").code == 0
    call("estimate", "--config", "run.toml", "--profile", of_gpu.name).refused("the plan is for h100-80gb")


def test_a_config_loses_its_profile_with_its_card(call: Call, of_gpu: Path) -> None:
    assert call("plan", *SMALL, "--profile", of_gpu.name, "-o", "run.toml").code == 0
    assert basis(call, "--config", "run.toml", "--seed", "2") == "profile"
    assert basis(call, "--config", "run.toml", "--gpu", "h100-80gb") == "datasheet"


def without_adamw() -> dict[str, Any]:
    found = quiet()
    return found | {"kernels": {name: rows for name, rows in found["kernels"].items() if name != "adamw"}}


BAD: dict[str, tuple[str, str]] = {
    "empty": ("", "Expecting value"),
    "a list": ("[1]", "not a JSON object"),
    "no kernels": ('{"schema": 2, "relative_noise": 0.1, "kernels": {}}', "no kernels"),
    "a kernel too few": (profile_text(without_adamw()), "no times for adamw"),
    "another schema": (profile_text(quiet(schema=9)), "schema 9"),
    "memory as text": (profile_text(quiet(memory_bytes="64 GB")), "memory_bytes is 64 GB"),
    "no name": (profile_text(quiet(device_name=3)), "not texts"),
    "busy": (profile_text(quiet(relative_noise=0.3)), "busy machine: its noise is 30%"),
    "nested": ("[" * 100_000, "nested deeper"),
    "not a time": (profile_text(quiet()).replace("[[1, ", "[[1, -", 1), "not above 0"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_profile_is_one_message(kind: str, call: Call, tmp_path: Path) -> None:
    text, why = BAD[kind]
    (tmp_path / "bad.json").write_text(text)
    call("estimate", *FOR_CPU, "--profile", "bad.json").refused("bad.json", why, "gptplan calibrate")
    assert call("plan", *FOR_CPU, "-o", "run.toml").code == 0
    call("run", "run.toml", "--out", "out", "--profile", "bad.json").refused("bad.json", why)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_cache_breaks_no_plan_and_is_said_in_it(kind: str, call: Call, tmp_path: Path) -> None:
    text, why = BAD[kind]
    (tmp_path / "cache/gptplan").mkdir(parents=True)
    (tmp_path / "cache/gptplan/profile-cpu.json").write_text(text)
    said = json.loads(call("estimate", *FOR_CPU, "--json").out)
    assert said["throughput"]["basis"] == "unknown"
    (reason,) = [a["source"] for a in said["config"]["provenance"]["assumptions"] if a["key"] == "profile"]
    assert "is left aside" in reason and why in reason
    assert next(f["message"] for f in said["findings"] if f["code"] == "no_profile").endswith(reason)


def test_a_missing_profile_is_one_message(call: Call) -> None:
    call("estimate", *FOR_CPU, "--profile", "none.json").refused("none.json does not exist")
    call("run", "--resume", "run", "--profile", "none.json").refused("run is not a run directory")


def test_a_card_without_a_preset_is_refused_by_its_name(call: Call, tmp_path: Path) -> None:
    written(tmp_path / "p.json", quiet(device="cuda", device_name="NVIDIA Imaginary 9"))
    call("estimate", *SMALL, "--profile", "p.json").refused("NVIDIA Imaginary 9", "in no preset")


# --- calibrate --------------------------------------------------------------------------------------------------------


def test_calibrate_keeps_a_quiet_profile_and_never_a_noisy_one(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reference_trainer.measure import calibrate

    file = tmp_path / "cache/gptplan/profile-cpu.json"
    found = [quiet(relative_noise=0.5), quiet(relative_noise=0.2)]
    monkeypatch.setattr(calibrate, "measure_profile", lambda *_: found.pop(0))
    said = call("calibrate", "--tries", "2")
    assert said.code == 1 and said.out == "" and "not kept and not used" in said.err and not file.exists()
    found += [quiet(relative_noise=0.5), quiet()]
    assert call("calibrate", "--tries", "2").code == 0 and json.loads(file.read_text()) == quiet()
    found += [quiet(note="2")]
    assert call("calibrate", "-o", "mine.json").code == 0 and json.loads(file.read_text()) == quiet()
    assert json.loads((tmp_path / "mine.json").read_text()) == quiet(note="2")
    call("calibrate", "-o", "mine.json").refused("mine.json exists already")
    assert basis(call, *FOR_CPU, "--profile", "mine.json") == "profile"


def test_equal_profiles_have_equal_files() -> None:
    profile = quiet()
    assert profile_text(dict(reversed(profile.items()))) == profile_text(json.loads(profile_text(profile)))


def test_a_profile_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises((ConfigError, ValueError)):
        profile_text(quiet(relative_noise=float("nan")))
