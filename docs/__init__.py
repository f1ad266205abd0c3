"""The book as a site: `python -m docs` writes it into `_docs/`, from the outputs that the notebooks hold."""
