from experiments.explain import STUDY

STUDY()
