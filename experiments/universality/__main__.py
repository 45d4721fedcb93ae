from experiments.universality import STUDY

STUDY()
