"""The site: sphinx-build -W --keep-going docs build/docs."""

import re
import sys
from os.path import relpath
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

project = "retinanet_jax"
# The address of the project on GitHub; OWNER is a placeholder. The Colab links of
# notebooks/README.md and the first cells of the notebooks contain it, as tests/test_docs.py checks.
# To set it: grep -rl OWNER/retinanet_jax docs notebooks | xargs sed -i s,OWNER/,NAME/,
REPOSITORY = "OWNER/retinanet_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "retinanet_jax"
html_show_copyright = False

# Headings have the same anchors as on GitHub.
myst_heading_anchors = 4

# Docstrings are prose with code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_use_ivar = True

# Documents outside docs/. Their pages in docs/ are a link for readers on GitHub.
ELSEWHERE = {
    "results": ROOT / "experiments/README.md",
    "notebooks": ROOT / "notebooks/README.md",
    "contributing": ROOT / "CONTRIBUTING.md",
    "changelog": ROOT / "CHANGELOG.md",
}
PAGES = {path: f"{name}.md" for name, path in ELSEWHERE.items()}
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")


def read_source(app, name, source):
    """Inserts the documents outside docs/; links between documents become links of the site."""
    path = ELSEWHERE.get(name, HERE / f"{name}.md")

    def place(found):
        target = (path.parent / found[1]).resolve()
        return PAGES.get(target, relpath(target, HERE))

    app.env.note_dependency(str(path))
    source[0] = LINK.sub(place, path.read_text(encoding="utf-8"))


def escape(app, what, name, item, options, lines):
    """Escapes | and * outside of code: in docstrings they are not markup."""
    for i, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [re.sub(r"\||\*(?! )", r"\\\g<0>", part) for part in parts[::2]]
        lines[i] = "`".join(parts)


def name_arrays(app, what, name, item, options, signature, result):
    """Writes array types as in the source: ArrayLike for JAX or NumPy, Array for JAX."""

    def plain(text):
        text = (text or "").replace("jaxlib._jax.Array", "Array")
        either = r"([\w.~]+)\[Array, ('[^']*')\] \| \1\[ndarray, \2\]"
        return re.sub(either, r"\1[ArrayLike, \2]", text)

    return plain(signature) or None, plain(result) or None


def setup(app):
    app.connect("autodoc-process-signature", name_arrays)
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", escape, priority=400)  # before napoleon
