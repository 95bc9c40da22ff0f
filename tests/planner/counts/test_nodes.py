"""GPUs that a card's links join, and the network cards that lead out of them: the preset's, or one for each GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner import presets
from planner.config.run import RunConfig
from planner.counts.nodes import domain_of, gpus_per_domain, network_cards_of
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate


def drafted(**texts: str) -> RunConfig:
    words = {"model": "gpt2-xl", "steps": "10", "micro_batch": "1", "runtime": "eager", "gpus": "144"} | texts
    return draft(Flags(**words), as_of="2026-11-27", version="test")


@pytest.mark.parametrize(
    ("gpu", "domain", "cards"), [("h100-80gb", 8, 8), ("gb200", 72, 72), ("gb300", 72, 72), ("l4", 8, 8)]
)
def test_domain_and_network_cards_are_those_of_the_preset(gpu: str, domain: int, cards: int) -> None:
    config = drafted(gpu=gpu)
    assert gpus_per_domain(gpu) == domain_of(config) == domain
    assert network_cards_of(config) == cards
    assert network_cards_of(drafted(gpu=gpu, gpus_per_node="4")) == 4


def test_what_no_preset_describes_is_a_usual_server() -> None:
    assert gpus_per_domain("") == gpus_per_domain(presets.UNLISTED_GPU) == 8


def test_domains_are_stated_with_their_network_cards() -> None:
    for gpu in map(presets.gpu, presets.gpu_ids()):
        assert (gpu.link_domain is None) == (gpu.network_cards is None), gpu.id
        assert gpu.link_domain is None or gpu.link_domain >= gpu.network_cards > 0, gpu.id


def test_fewer_network_cards_are_slower_between_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    config, inside = drafted(gpu="h100-80gb", gpus="64"), drafted(gpu="h100-80gb", gpus="8")
    before, within = estimate(config).throughput.parts, estimate(inside).throughput.parts
    real = presets.gpu
    monkeypatch.setattr(presets, "gpu", lambda id: replace(real(id), network_cards=2))
    after = estimate(config).throughput.parts
    assert after["all-reduce"] > 2 * before["all-reduce"]
    assert estimate(inside).throughput.parts == within
