"""Reads YAML as plain data: dicts, lists and text."""

from typing import Any

import yaml

# Of the yaml package's loaders the one that leaves all values text: classes called 'no' or '01'.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_MAX_DEPTH = 50


def load_yaml(text: str) -> Any:
    """Returns the content of a YAML document, all of its values as text.

    Deep nesting, which could overflow the stack of the parser, and aliases, which could stand for
    very large content, are errors.

    Raises:
      ValueError: it is not YAML, or has one of these.
    """
    try:
        depth = 0
        for event in yaml.parse(text, _LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH or isinstance(event, yaml.AliasEvent):
                raise ValueError("it has aliases or is nested too deeply")
        return yaml.load(text, _LOADER)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error
