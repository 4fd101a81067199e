"""The end of a search: finalists, promotion, repeats, registration, the model card."""
