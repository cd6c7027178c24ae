"""What the console prints is what was given: no markup, no lost digits."""

from drivesim import console


def test_tables_print_brackets_and_numbers_as_they_are(capsys):
    console.print_table("scenes [all]", ["name", "figure"], [["a [b]", 1.23456], ["c", 4]], caption="[done]")
    out = capsys.readouterr().out
    assert all(text in out for text in ("scenes [all]", "a [b]", "1.235", "4", "[done]"))


def test_bytes_of_file_names_that_are_no_characters_are_replaced(capsys):
    console.say("th\udce9")
    console.fail("th\udce9")
    console.print_table("th\udce9", ["\udce9"], [["\udce9"]])
    captured = capsys.readouterr()
    assert captured.err == "error: th?\n"
    assert captured.out.startswith("th?\nth?\n")


def test_a_failure_is_one_line_on_standard_error(capsys):
    console.fail("no scene [x]\n  choose another")
    captured = capsys.readouterr()
    assert captured.err == "error: no scene [x] choose another\n"
    assert captured.out == ""


def test_progress_without_a_terminal_prints_lines_with_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(console, "PLAIN_INTERVAL_S", 0.0)
    with console.progress_bar("training", 20, done=10) as bar:
        bar.advance(5, "loss 1.5")
    out = capsys.readouterr().out
    assert "training: 15/20" in out
    assert "s left, loss 1.5" in out
