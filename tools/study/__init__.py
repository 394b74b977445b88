"""Studies: what a design is worth, trained and measured on data that anyone can generate."""
