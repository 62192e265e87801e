"""Pages that hold all they show, in HTML and SVG: elements, charts, tables, the frame."""
