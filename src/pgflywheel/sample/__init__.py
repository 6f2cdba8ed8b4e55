"""The sample that quickstart loads: a support assistant's spans, and validators for them."""
