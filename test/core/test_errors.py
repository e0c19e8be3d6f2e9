"""The one exception that a user is meant to read."""

from vla_ros.core.errors import LONGEST_TEXT, InputError


def test_foreign_names_do_not_break_the_line_or_steer_the_terminal():
    error = InputError("camera a\nb\x1b[2J\r\n: expected a name")
    assert str(error) == r"camera a\nb\x1b[2J\r\n: expected a name"
    assert str(InputError(f"robot: {error}")) == f"robot: {error}"


def test_a_list_of_problems_keeps_its_lines():
    text = "no episode can be used:\n  the first\n  the second"
    assert str(InputError(text)) == text


def test_a_long_text_is_cut():
    assert len(str(InputError("\n" * LONGEST_TEXT))) < LONGEST_TEXT + 10
