"""Runs command lines in order, as a shell does; input and output are those of parse_commands.py."""

from parse_commands import answer, start

if __name__ == "__main__":
    answer(start)
