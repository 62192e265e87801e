"""Runs command lines as a shell would, in turns; as parse_commands.py, but they do their work."""

from parse_commands import answer, start

if __name__ == "__main__":
    answer(start)
