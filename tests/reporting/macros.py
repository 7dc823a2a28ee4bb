"""Macros of the page templates, one at a time."""

from finetune.reporting.page import get_template_engine


def render_macro(template: str, macro: str, *values: object) -> str:
    """The HTML of one macro; a chart or a part of a page, without the page around it."""
    return str(getattr(get_template_engine().get_template(template).module, macro)(*values))
