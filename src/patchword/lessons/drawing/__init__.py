"""Pictures of the lessons as HTML and SVG: `draw(picture, language, slug)`."""

from patchword.lessons.drawing.pictures import draw

__all__ = ["draw"]
