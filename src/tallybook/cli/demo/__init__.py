"""`tallybook demo`: a month of business on embedded stores, billed, reconciled and reported."""
