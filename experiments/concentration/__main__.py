from experiments.concentration import STUDY

STUDY()
