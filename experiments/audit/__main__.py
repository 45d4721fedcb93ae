from experiments.audit import STUDY

STUDY()
