"""The plan is computed at every key; invalid text keeps the last result, dimmed and labelled."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from textual.events import Paste
from textual.widgets import Input, Static

from planner.config.options import OPTIONS
from planner.errors import InputError
from planner.inputs.run_toml import config_text, load_config
from planner.units import format_count_exact, format_money
from tui.fields import MAIN
from tui.messages import form_message, with_labels
from tui.session import command_of, flags_result
from tui.widgets.form import PlanForm
from tui.widgets.group import GroupBox
from tui.widgets.row import FieldRow


def test_tokens_change_the_result(planner_app, session, small):
    async def play(user):
        before = user.text("#headline")
        assert "✓ fits" in before
        await user.type("tokens", "20B")
        plan = flags_result(replace(small, tokens="20B"), session).plan
        after = user.text("#headline")
        assert after != before
        assert format_count_exact(plan.batch.steps) in after
        assert format_money(plan.cost.usd.value) in after
        assert "20B tokens" in user.text("#summary")
        assert "--tokens 20B" in user.text("#command")

    planner_app(play)


def test_each_key_counts(planner_app):
    async def play(user):
        await user.press("down", "down", "0")
        assert user.app.flags.tokens == "10B0"
        assert user.app.error is not None
        await user.press("backspace")
        assert user.app.error is None
        await user.press("home", "5")
        assert user.app.result.plan.tokens.requested == 510_000_000_000

    planner_app(play)


def test_a_key_draws_only_what_changed(planner_app):
    """No layout while nothing changes its extent, and no line of a widget that says the same: keys stay quick."""

    async def play(user):
        await user.open("config")
        user.app.query_one("#tokens", Input).focus()
        await user.press("home", "5")
        layouts, lines = [], set()
        user.app.screen.screen_layout_refresh_signal.subscribe(user.app, layouts.append, immediate=True)
        display = user.app._display

        def drawn(screen, update):
            lines.update(y for y, first, _ in update.spans if first < user.app.query_one(PlanForm).region.right)
            display(screen, update)

        user.app._display = drawn
        await user.press("delete", "6")  # the 1 of 510B
        assert user.app.flags.tokens == "560B"
        assert not layouts
        assert user.app.query_one("#tokens").region.y in lines
        assert len(lines) <= 5, "the field, and those whose value in effect moves with it"

    planner_app(play, draws=True)


GARBAGE = "gar bage\N{SNOWMAN}"
PASTED = ("\N{SNOWMAN}", "1e999999999", "-5", "--tokens", "[bold]x[/]", "0x10", "\u202e", "9" * 300, "$$$", "NaN", "'")


def test_garbage_in_each_field_keeps_the_last_result_dimmed(planner_app):
    async def play(user):
        before = user.text("#headline"), user.text("#summary"), user.text("#findings")
        for name in MAIN:
            was = user.app.query_one(f"#{name}", Input).value
            await user.type(name, GARBAGE)
            assert user.app.error is not None, name
            row = user.app.query_one(f"#row-{name}")
            shown = str(row.query_one(".why", Static).render())
            assert shown == form_message(user.app.error, name) and "fix: " in shown, name
            assert row.query_one(".why").region.y > row.query_one(Input).region.y, name
            assert [text.split("\n")[1:] for text in (user.text("#headline"),)] == [before[0].split("\n")[1:]], name
            assert (user.text("#summary"), user.text("#findings")) == before[1:], name
            assert "last valid result" in user.text("#headline"), name
            assert user.app.query_one("#headline").styles.text_opacity < 1, name
            assert user.app.query_one("#summary").styles.text_opacity < 1, name
            assert "Last valid" in str(user.app.query_one("#headline").border_title), name
            if name != "model":  # there the message is about two fields
                assert marked(user) == [name]
            user.app.query_one(f"#{name}", Input).value = was
            await user.until(lambda: user.app.error is None and not user.app.query(".why"))
            assert not user.app.query_one("#headline").has_class("-stale"), name
            assert marked(user) == []

    planner_app(play)


def test_anything_pasted_into_any_field_is_a_result_or_a_message(planner_app, monkeypatch):
    """Every field of every group; never a traceback, and the form is as before once it is empty again."""

    async def play(user):
        monkeypatch.setattr("tui.live_plan.IDLE_SECONDS", 600)  # the text is the subject: nothing is simulated for it
        form = user.app.query_one(PlanForm)

        def read(name: str, text: str) -> bool:
            return (getattr(user.app.flags, name) or "") == text

        def told(name: str, message: str) -> bool:
            return name in marked(user) or str(form.query_one("#mistake", Static).render()) == message

        for box in form.query(GroupBox):
            box.opened = True
            await user.pilot.pause()
            for i, name in enumerate(box.group.fields):
                text = PASTED[i % len(PASTED)]
                place = box.query_one(f"#{name}", Input)
                was, place.value = place.value, ""
                place.post_message(Paste(text))
                await user.until(partial(read, name, text))
                assert user.app.error is not None, (name, text)
                shown = f"✗ {form_message(user.app.error)}"
                await user.until(partial(told, name, shown))  # a closed group that is named opens first
                place.value = was
                await user.until(partial(read, name, was))
                assert user.app.error is None, name
            box.opened = False

    planner_app(play, size=(60, 20))


def marked(user) -> list[str]:
    """Fields with the sign of a mistake."""
    return [row.field for row in user.app.query(FieldRow) if str(row.render()).startswith("✗")]


def test_contradicting_fields_are_both_marked(planner_app):
    async def play(user):
        await user.type("model", "gpt2")
        assert sorted(marked(user)) == ["model", "params"]
        assert {"✗ parameters", "✗ model"} <= {line[2:24].strip() for line in user.seen().splitlines()}
        await user.type("params", "")
        assert marked(user) == [] and "gpt2" in user.text("#summary")

    planner_app(play)


def test_does_not_fit_is_shown_as_text(planner_app):
    async def play(user):
        await user.type("params", "70B")
        assert "✗ does not fit" in user.text("#headline")
        assert "[does_not_fit]" in user.text("#findings")

    planner_app(play)


def test_unknown_is_unknown(planner_app):
    async def play(user):
        await user.type("gpu", "cpu")  # no profile in this session
        assert "unknown" in user.text("#headline")
        assert "[no_profile]" in user.text("#findings")

    planner_app(play)


def test_empty_fields_show_the_value_in_effect(planner_app):
    async def play(user):
        assert user.app.query_one("#seq", Input).placeholder == "(1024)"
        await user.type("model", "")
        await user.type("seq", "512")
        expected = user.app.result.plan.config.training.micro_batch
        assert user.app.query_one("#micro_batch", Input).placeholder == f"({expected})"

    planner_app(play)


def test_a_file_is_the_base_and_fields_start_empty(planner_app, session, small, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(config_text(flags_result(replace(small, tokens="3B"), session).plan.config))
    with_file = replace(session, file=path, base=load_config(path))

    async def play(user):
        assert [user.app.query_one(f"#{n}", Input).value for n in MAIN] == [""] * len(MAIN)
        assert user.app.result.plan.config == with_file.base
        await user.type("gpus", "2")
        assert user.app.result.plan.config.hardware.gpus == 2
        assert user.app.result.plan.config.training.tokens == 3_000_000_000

    planner_app(play, session=with_file)


def test_a_machine_whose_gpu_is_unknown_asks_for_one(planner_app, session):
    unknown = replace(session, machine_gpu=InputError("this machine's GPU 'X' is in no preset", remedy="--gpu NAME"))

    async def play(user):
        assert "in no preset" in user.text("#mistake")
        assert "no result yet" in user.text("#headline")
        await user.type("gpu", "h100-80gb")
        assert user.app.error is None and "✓ fits" in user.text("#headline")

    planner_app(play, session=unknown)


def test_the_command_is_quoted_for_a_shell(session, small):
    file = replace(session, file=Path("my run.toml"))
    assert command_of(replace(small, gpu="a b"), file) == (
        "gptplan estimate --config 'my run.toml' --params 125M --tokens 10B --gpu 'a b'"
    )


def test_messages_name_fields_by_their_labels():
    """Every flag of the form's fields has its label; a flag of another command stays."""
    error = InputError("--params and --tied contradict each other", remedy="give --tokens, such as --tokens 10B")
    assert form_message(error) == (
        "“parameters” and “embeddings tied” contradict each other\n"
        "  fix: give “training tokens”, such as “training tokens” 10B"
    )
    for option in OPTIONS:
        assert with_labels(f"{option.flag}: 'x'") == f"“{option.short}”: 'x'" or option.kind.parser == "switch"
    assert form_message(InputError("--tokens: 'x' is not a count"), "tokens") == "'x' is not a count"
    assert form_message(InputError("--tokens: 'x' is not a count"), "seq").startswith("“training tokens”: ")
    assert with_labels("gptplan run --resume DIR") == "gptplan run --resume DIR"


def test_the_form_shows_labels_and_no_flags(planner_app):
    async def play(user):
        await user.type("tokens", "many")
        assert user.text(".why").startswith("'many' is not a count")
        assert "--" not in user.text("#findings") and "“USD per GPU-hour”" in user.text("#findings")

    planner_app(play)
