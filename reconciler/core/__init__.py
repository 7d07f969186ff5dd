"""What is true and what follows from it: pure rules over frozen values, without a clock and without I/O."""
