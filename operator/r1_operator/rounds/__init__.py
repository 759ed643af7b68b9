"""One round of one R1Deployment: everything known → everything that is to be done and told. Pure.

`decide.decide(facts, now) → Round` is the operator's one mind. The controller, the property tests and `r1 explain` call
the same function.
"""
