from experiments.generalization import STUDY

STUDY()
