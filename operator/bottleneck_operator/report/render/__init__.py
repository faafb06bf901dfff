"""A diagnosis as people see it: text for the terminal, drawings as SVG, one page of HTML. Pure."""
