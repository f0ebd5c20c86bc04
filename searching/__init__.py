"""Words that bring a concept back: found by gradient on the model that is measured."""
