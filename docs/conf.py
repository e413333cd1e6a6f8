"""The documentation: Sphinx, MyST, furo."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

from weightstore import __version__

project = "weightstore"
author = "The weightstore developers"
project_copyright = "The weightstore developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "click_reference",
]
exclude_patterns = ["_build"]
# reference/benchmarks.md is there once `make bench` has written it; its headings begin at the third level.
suppress_warnings = ["myst.header"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
add_module_names = False
toc_object_entries = False

smartquotes = False  # options begin with two hyphens

# Prompts are shown and not copied; a block that has some is copied without its output.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"
copybutton_here_doc_delimiter = "END"

html_theme = "furo"
html_title = "weightstore"
html_static_path = ["_static"]
html_css_files = ["weightstore.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5d7a", "color-brand-content": "#0b6e8f"},
    "dark_css_variables": {"color-brand-primary": "#6cc6e4", "color-brand-content": "#6cc6e4"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
