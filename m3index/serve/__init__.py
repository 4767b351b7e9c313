"""An index over HTTP, with a page for people, and as tools of the Model Context Protocol."""
