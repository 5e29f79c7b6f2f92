"""Elements of SVG as text, with everything escaped; their classes get colours from a style sheet."""

from html import escape


def element(tag: str, kind: str, *, inside: str = "", **values: object) -> str:
    """An element of a class; underscores of attributes become hyphens, and numbers get one digit."""
    attributes = "".join(f' {name.replace("_", "-")}="{_value(value)}"' for name, value in values.items())
    return f'<{tag} class="{kind}"{attributes}' + (f">{inside}</{tag}>" if inside else "/>")


def text(kind: str, x: float, y: float, content: str, *, anchor: str = "", turned: float | None = None) -> str:
    """A line of text; one that is turned upright is centred."""
    turn = {} if turned is None else {"transform": f"rotate({turned:g} {x:.1f} {y:.1f})"}
    anchor = anchor or ("middle" if turned == -90 else "start")
    return element("text", kind, x=x, y=y, text_anchor=anchor, **turn, inside=escape(content) or " ")


def _value(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))
