"""The palette finds what fits the GPU, fills it in with the peak in a message, and undo restores the form."""

from __future__ import annotations

import pytest

from planner.analysis.changes import with_micro_batch
from planner.analysis.fitting import predicted_peak
from planner.counts.run import resolve
from planner.inputs.flags import Flags
from planner.inputs.run_toml import load_config
from tui.fit import FIT_SEARCHES, search_fit
from tui.session import FormState, flags_result

LARGEST, SMALLEST = FIT_SEARCHES


async def choose(user, fit):
    """By the palette, as a person does."""
    await user.press("ctrl+p", *fit.title.lower()[:12].replace(" ", ""))
    await user.pilot.pause(0.4)
    await user.press("enter")


def messages(user) -> str:
    return " ".join(f"{n.title} {n.message}" for n in user.app._notifications)


def test_the_largest_micro_batch_that_fits_is_typed_and_saved(planner_app, session, tmp_path):
    path = tmp_path / "run.toml"

    async def play(user):
        await user.type("gpu", "a100-40gb")
        before = user.app.result.plan
        await choose(user, LARGEST)
        plan = user.app.result.plan
        training = plan.config.training
        assert training.micro_batch > before.config.training.micro_batch
        assert plan.memory.fits and plan.batch.tokens_per_step == before.batch.tokens_per_step
        assert user.app.flags.micro_batch == str(training.micro_batch)
        assert f"--micro-batch {training.micro_batch} --accumulation {training.accumulation}" in messages(user)
        assert "predicted peak" in messages(user) and "39.5 GiB usable" in messages(user)
        per_device = training.micro_batch * training.accumulation
        larger = next(m for m in range(training.micro_batch + 1, per_device + 1) if per_device % m == 0)
        capacity = plan.memory.usable_bytes - plan.memory.context_bytes
        assert predicted_peak(with_micro_batch(resolve(plan.config), larger), replay=True) > capacity
        await user.press("ctrl+s")
        await user.type("path", str(path))
        await user.press("enter")
        assert load_config(path).training.micro_batch == training.micro_batch
        await user.press("ctrl+z")
        assert user.app.flags == Flags(params="125M", tokens="10B", gpu="a100-40gb")

    planner_app(play)


def test_the_smallest_change_that_fits_is_typed(planner_app):
    async def play(user):
        await user.type("params", "1.3B")
        await user.type("gpu", "a100-40gb")
        await user.type("micro_batch", "64")
        assert "does not fit" in user.text("#headline")
        await choose(user, SMALLEST)
        assert "✓ fits" in user.text("#headline"), messages(user)
        assert user.app.flags != Flags(params="1.3B", tokens="10B", gpu="a100-40gb", micro_batch="64")

    planner_app(play)


@pytest.mark.parametrize("fit", FIT_SEARCHES)
def test_a_search_without_result_says_so(fit, session):
    def find(**fields):
        return search_fit(fit, FormState(session, Flags(tokens="10B", **fields)))

    assert find(params="175B", gpu="a100-40gb").title == "✗ nothing fits"
    chosen = find(params="350M", gpu="a100-40gb", global_batch_tokens="512Ki", micro_batch="512")
    assert chosen.flags.accumulation is None and chosen.flags.global_batch_tokens == "512Ki"
    assert flags_result(chosen.flags, session).plan.memory.fits
    again = search_fit(fit, FormState(session, chosen.flags))
    assert again.flags is None and again.title == "✓ nothing to change"
