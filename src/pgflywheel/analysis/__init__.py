"""Numbers that need numpy and scikit-learn (extra ``analysis``); knows no database."""
