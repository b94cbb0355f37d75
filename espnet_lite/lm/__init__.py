"""Language models: n-grams (estimated, stored, read from ARPA files) and the text they are made of."""
