from experiments.molrg import STUDY

STUDY()
