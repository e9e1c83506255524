"""How the page looks: the system's fonts, and no file of another site."""

from __future__ import annotations

import gradio as gr

STYLE = """
.gradio-container { max-width: 1500px !important; }
#legend label span::before {
  content: ""; display: inline-block; width: 0.9em; height: 0.9em; margin-right: 0.5em;
  border: 1px solid rgb(0 0 0 / 30%); border-radius: 3px; vertical-align: -0.1em;
}
#examples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; }
#examples .grid-wrap, #attention .grid-wrap { min-height: 0; }
#examples .grid-container { grid-auto-rows: auto; grid-template-rows: none; }
#examples .thumbnail-lg { width: 100%; height: auto; aspect-ratio: 1; min-width: 0; }
#message p { margin: 0; padding: 0.3em 0.1em; }
#message p[role="alert"] { color: #b91c1c; font-weight: 600; }
.dark #message p[role="alert"] { color: #fca5a5; }
"""
_FONTS = ["system-ui", "sans-serif"]
_FIXED_WIDTH_FONTS = ["ui-monospace", "monospace"]


def theme() -> gr.Theme:
    """Gradio's theme without the fonts that it would load from Google."""
    return gr.themes.Default(font=_FONTS, font_mono=_FIXED_WIDTH_FONTS)
