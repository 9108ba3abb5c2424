"""Are the tests able to fail? Faults are planted in the product, and its tests are to find them.

Why a runner of our own: mutmut 3 plants nothing outside of functions, where the tables of the
layouts stand, judges every module by one list of tests, and has no place for the reason why a
survivor is harmless. cosmic-ray starts a process per mutant: 3 s of imports each. Here a process
that has imported everything is forked for every mutant, and the child runs only the tests
that reach the changed line, the fastest first.
"""
