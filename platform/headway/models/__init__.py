"""After training: a run's model is loaded, evaluated, used on new data, and given away."""
