from experiments.hidden_gaussian import STUDY

STUDY()
