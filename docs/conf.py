"""The site of the documents: `sphinx-build -W docs build/site`."""

project = "fusion_keras"
extensions = ["myst_parser"]
html_theme = "furo"
root_doc = "index"
myst_heading_anchors = 3
highlight_language = "none"
