"""The settings of a run: the tree of fields, recipes, the paper's tables, experiment files."""
