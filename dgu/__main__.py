import sys

from dgu.command import main

# Imported by what walks through all modules, it does nothing.
if __name__ == "__main__":
    sys.argv[0] = "dgu"
    main()
