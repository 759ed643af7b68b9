"""A cluster of values around the operator's one mind: real decisions on real objects, with time and faults at will."""
