"""The report of a search: run records as one document, the document as one self-contained HTML page."""
