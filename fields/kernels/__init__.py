"""Other ways to compute what a field computes, each tested against the field itself."""
