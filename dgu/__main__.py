import sys

from dgu.command import main

sys.argv[0] = "dgu"
main()
